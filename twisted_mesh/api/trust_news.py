"""What a CA tells, made of the bytes that it sends; each function may run on a thread."""

import re
from collections.abc import Mapping
from typing import TypeVar

from attrs import frozen
from cryptography import x509
from msgspec import UnsetType

from pki.errors import Malformed, printable
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Revocation
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import load_certificates
from twisted_mesh.api.body import read_shape
from twisted_mesh.api.messages import LogNews, TrustAnswer
from twisted_mesh.api.revocation_rows import revocation_of
from twisted_mesh.trust.log_witness import LogStatement

T = TypeVar("T")

#: The largest position, and the longest id of a store, that can be asked from.
_MOST, _LONGEST_STORE = 2**62, 200
#: So many issuing CAs may have leaves in use, so many certificates stand above one of these, and each is so long.
MOST_ISSUERS, MOST_ABOVE, LONGEST_PEM = 1000, 4, 16 * 1024
#: So many pins, and so many logs, may be withdrawn, and so many CA certificates be revoked.
MOST_WITHDRAWN, MOST_REVOKED = 10_000, 10_000
#: And so many certificates of other trust domains.
MOST_OF_OTHERS = 100_000
#: The CA's bundle with the roots that it does not show to libraries of others.
WHOLE_BUNDLE = "/api/v1/bundle?keys=all"
_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EDITION = re.compile(r"[0-9a-f]{1,64}", re.ASCII)


@frozen
class TrustNews:
    """What the CA says is to be believed, and what it has revoked since the position asked for."""

    store: str
    position: int
    bundles: BundleSet
    revocations: tuple[Revocation, ...]
    """Those of CA certificates too, which are told anew each time."""
    log: LogStatement | None = None
    """Of the CA's audit log, where that has moved on."""
    more: bool = False
    """Whether there may be others already."""
    waited: float = 0.0
    """For how many seconds the CA had waited before it looked for the last time."""
    issuers: Mapping[str, tuple[x509.Certificate, ...]] | None = None
    """What is to be served above the leaves of each issuing CA, by its key id; None of a CA that does not say so."""
    withdrawn_pins: frozenset[str] = frozenset()
    """``sha256/BASE64`` of the SPKIs of CA keys that are not to be relied on any more."""
    edition: str = ""
    """Of all but the revocations of leaves; empty of a CA that does not say it."""
    withdrawn_logs: frozenset[str] = frozenset()
    """Ids, in base64, of logs whose receipts are not to be counted any more."""


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
    revocations = tuple(revocation_of(revoked) for revoked in answer.revocations)
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
        (*revocations, *_revoked_authorities(address, answer), *_of_others(address, answer)),
        told,
        # Before a CA said so, it was known only once nothing came.
        bool(revocations) if answer.more is None else answer.more,
        answer.waited,
        _issuers(address, answer.issuers),
        _withdrawn_pins(address, answer.withdrawn_pins),
        _edition(address, answer.edition),
        _withdrawn_logs(address, answer.withdrawn_logs),
    )


def _edition(address: str, told: str | UnsetType) -> str:
    if isinstance(told, UnsetType):
        return ""
    if not _EDITION.fullmatch(told):
        raise Malformed(f"what answers at {address} says an edition that is none")
    return told


def _issuers(
    address: str, told: Mapping[str, list[str]] | UnsetType
) -> Mapping[str, tuple[x509.Certificate, ...]] | None:
    if isinstance(told, UnsetType):
        return None
    _bound(address, "issuing CAs", told, MOST_ISSUERS)
    return {key_id: _above(address, key_id, pems) for key_id, pems in told.items()}


def _above(address: str, key_id: str, pems: list[str]) -> tuple[x509.Certificate, ...]:
    """What stands above the leaves of one issuing CA. Whether it does is for whoever serves it to judge."""
    what = f"the way above {printable(key_id, 80)} that {address} tells"
    if not _KEY_ID.fullmatch(key_id):
        raise Malformed(f"{what}: that is no key id, which has 64 digits of lower-case hex")
    if not 0 < len(pems) <= MOST_ABOVE or max(map(len, pems)) > LONGEST_PEM:
        raise Malformed(
            f"{what}: there are 1 to {MOST_ABOVE} certificates of at most {LONGEST_PEM} characters"
        )
    found = tuple(cert for pem in pems for cert in load_certificates(pem.encode(), what))
    if len(found) != len(pems):
        raise Malformed(f"{what}: there is one certificate in each text, and no other")
    return found


def _withdrawn_pins(address: str, told: list[str] | UnsetType) -> frozenset[str]:
    if isinstance(told, UnsetType):
        return frozenset()
    _bound(address, "withdrawn pins", told, MOST_WITHDRAWN)
    for pin in told:
        if not SpkiHash.is_written(pin):
            raise Malformed(
                f"{printable(pin, 80)!r}, which {address} withdraws, is no pin: sha256/ and 32 bytes in base64"
            )
    return frozenset(told)


def _withdrawn_logs(address: str, told: list[str] | UnsetType) -> frozenset[str]:
    if isinstance(told, UnsetType):
        return frozenset()
    _bound(address, "withdrawn logs", told, MOST_WITHDRAWN)
    for log in told:
        if not SpkiHash.is_written(f"sha256/{log}"):
            raise Malformed(
                f"{printable(log, 80)!r}, which {address} withdraws, is no id of a log: 32 bytes in base64"
            )
    return frozenset(told)


def _revoked_authorities(address: str, answer: TrustAnswer) -> tuple[Revocation, ...]:
    told = answer.revoked_authorities
    if isinstance(told, UnsetType):
        return ()
    _bound(address, "revoked CA certificates", told, MOST_REVOKED)
    return tuple(map(revocation_of, told))


def _of_others(address: str, answer: TrustAnswer) -> tuple[Revocation, ...]:
    told = answer.federated_revocations
    if isinstance(told, UnsetType):
        return ()
    _bound(address, "revocations of other trust domains", told, MOST_OF_OTHERS)
    return tuple(map(revocation_of, told))


def _bound(address: str, what: str, told: Mapping[str, object] | list[T], most: int) -> None:
    if len(told) > most:
        raise Malformed(f"{address} tells of {len(told)} {what}: at most {most} are read")
