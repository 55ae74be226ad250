"""What a CA tells, made of the bytes that it sends; each function may run on a thread."""

from typing import TypeVar

from attrs import frozen

from pki.errors import Malformed
from pki.serial import parse_serial
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from pki.validity import parse_rfc3339
from twisted_mesh.api.body import read_shape
from twisted_mesh.api.messages import LogNews, RevocationRow, TrustAnswer
from twisted_mesh.trust.log_witness import LogStatement

T = TypeVar("T")

#: The largest position, and the longest id of a store, that can be asked from.
_MOST, _LONGEST_STORE = 2**62, 200


@frozen
class TrustNews:
    """What the CA says is to be believed, and what it has revoked since the position asked for."""

    store: str
    position: int
    bundles: BundleSet
    revocations: tuple[Revocation, ...]
    log: LogStatement | None = None
    """Of the CA's audit log, where that has moved on."""
    more: bool = False
    """Whether there may be others already."""
    waited: float = 0.0
    """For how many seconds the CA had waited before it looked for the last time."""


def read_bundle(address: str, trust_domain: TrustDomain, content: bytes) -> TrustBundle:
    """Raises :class:`Malformed`, :class:`pki.svid.bundle.BadBundle`."""
    return TrustBundle.from_jwks_object(
        trust_domain, read_shape(address, dict[str, object], content)
    )


def read_news(address: str, content: bytes) -> TrustNews:
    """Raises :class:`Malformed`, :class:`pki.svid.bundle.BadBundle`."""
    answer = read_shape(address, TrustAnswer, content)
    if not 0 <= answer.generation <= _MOST or not 0 < len(answer.store) <= _LONGEST_STORE:
        raise Malformed(f"what answers at {address} says a position that is none")
    bundles = [
        TrustBundle.from_jwks_object(TrustDomain.parse(name), jwks)
        for name, jwks in answer.bundles.items()
    ]
    revocations = tuple(_revocation(revoked) for revoked in answer.revocations)
    told = None
    if isinstance(answer.log, LogNews):
        try:
            proof = tuple(bytes.fromhex(hash) for hash in answer.log.proof)
        except ValueError:
            raise Malformed(f"what answers at {address} is no CA of the mesh") from None
        told = LogStatement(answer.log.verifier, answer.log.checkpoint, proof)
    return TrustNews(
        answer.store,
        answer.generation,
        BundleSet.of(*bundles),
        revocations,
        told,
        # Before a CA said so, it was known only once nothing came.
        bool(revocations) if answer.more is None else answer.more,
        answer.waited,
    )


def _revocation(row: RevocationRow) -> Revocation:
    try:
        reason = Reason(row.reason)
    except ValueError:
        reason = Reason.UNSPECIFIED
    return Revocation(
        row.issuer,
        parse_serial(row.serial),
        parse_rfc3339(row.revoked_at),
        reason,
        parse_rfc3339(row.expires_at),
    )
