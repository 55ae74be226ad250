"""What the Workload API answers, made of what a process may have at a moment."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pki.spiffe import TrustDomain
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.runtime.log import logger
from twisted_mesh.workload.interface import Bundles, Refusal, Snapshot, WorkloadSvid
from twisted_mesh.workload.messages import (
    JwtBundlesResponse,
    X509BundlesResponse,
    X509SvidMessage,
    X509SvidResponse,
)

log = logger("workload")
_JWT_USE = "jwt-svid"
#: What gRPC's clients take by default, in bytes of a message.
_MOST_OF_CLIENTS = 4 * 1024 * 1024


def refused(refusal: Refusal | None) -> GrpcError:
    """How a call ends for that reason; for none, because nothing is known yet."""
    if refusal is None:
        return GrpcError(Status.UNAVAILABLE, "nothing is known yet: the CA has not answered")
    status = Status.PERMISSION_DENIED if refusal.is_final else Status.UNAVAILABLE
    return GrpcError(status, str(refusal.problem))


def believed(snapshot: Snapshot) -> Bundles:
    """The bundles that a caller may have. Raises :class:`GrpcError`.

    Whoever is refused for good gets none; who has an identity that just cannot be signed now keeps them.
    """
    if snapshot.bundles is None or (snapshot.refusal is not None and snapshot.refusal.is_final):
        raise refused(snapshot.refusal)
    return snapshot.bundles


def x509_svids(snapshot: Snapshot) -> bytes:
    """FetchX509SVID's answer. Raises :class:`GrpcError` where there is none."""
    if not snapshot.svids:
        raise refused(snapshot.refusal)
    bundles = believed(snapshot)
    hints = each_once(identity.hint for identity in snapshot.svids)
    answer = X509SvidResponse(
        svids=[
            _identity(identity, hint, bundles)
            for identity, hint in zip(snapshot.svids, hints, strict=True)
        ],
        crl=_crls(bundles),
        federated_bundles=_x509(bundles, without=bundles.own),
    )
    return _small(answer.encode(), lambda: evolve(answer, crl=()).encode())


def _identity(identity: WorkloadSvid, hint: str, bundles: Bundles) -> X509SvidMessage:
    svid = identity.svid
    return X509SvidMessage(
        spiffe_id=str(svid.spiffe_id),
        x509_svid=b"".join(cert.public_bytes(Encoding.DER) for cert in svid.chain),
        x509_svid_key=svid.key.private_key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        ),
        bundle=_roots(bundles, svid.spiffe_id.trust_domain),
        hint=hint,
    )


def x509_bundles(snapshot: Snapshot) -> bytes:
    """FetchX509Bundles' answer. Raises :class:`GrpcError` where there is none."""
    bundles = believed(snapshot)
    _roots(bundles, bundles.own)
    answer = X509BundlesResponse(_crls(bundles), _x509(bundles))
    return _small(answer.encode(), lambda: evolve(answer, crl=()).encode())


def _small(message: bytes, without_crls: Callable[[], bytes]) -> bytes:
    """An answer that every client takes: one that does not could not rotate either."""
    if len(message) <= _MOST_OF_CLIENTS:
        return message
    log.warn(
        "an answer of the Workload API has {size} bytes, and clients take {most}: its CRLs are left out",
        event="workload-crls-left-out",
        size=len(message),
        most=_MOST_OF_CLIENTS,
    )
    return without_crls()


def jwt_bundles(snapshot: Snapshot) -> bytes:
    """FetchJWTBundles' answer. Raises :class:`GrpcError` where there is none."""
    bundles = believed(snapshot)
    if bundles.own not in bundles.jwks:
        raise GrpcError(
            Status.UNAVAILABLE, f"nothing is known yet of the JWT keys of {bundles.own}"
        )
    return JwtBundlesResponse(
        {str(at.id): _jwt_keys(jwks) for at, jwks in bundles.jwks.items()}
    ).encode()


@lru_cache(maxsize=64)
def _jwt_keys(jwks: bytes) -> bytes:
    """The document without keys of another use (section 6.2.2). Raises :class:`GrpcError`."""
    try:
        document = json.loads(jwks)
        keys = [key for key in document["keys"] if key.get("use") == _JWT_USE]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise GrpcError(Status.UNAVAILABLE, "a bundle of JWT keys is no JWKS document") from None
    if len(keys) == len(document["keys"]):
        return jwks
    return json.dumps({**document, "keys": keys}).encode()


def _roots(bundles: Bundles, trust_domain: TrustDomain) -> bytes:
    """Raises :class:`GrpcError` where there are none: the field is mandatory."""
    bundle = bundles.x509.get(trust_domain)
    if bundle is None or not bundle.roots:
        raise GrpcError(Status.UNAVAILABLE, f"no root of {trust_domain} is known yet")
    return b"".join(root.public_bytes(Encoding.DER) for root in bundle.roots)


def _x509(bundles: Bundles, without: TrustDomain | None = None) -> Mapping[str, bytes]:
    """Each trust domain apart; one without a root is believed in nothing, and left out."""
    return {
        str(bundle.trust_domain.id): _roots(bundles, bundle.trust_domain)
        for bundle in bundles.x509
        if bundle.trust_domain != without and bundle.roots
    }


def _crls(bundles: Bundles) -> Sequence[bytes]:
    """Of our own trust domain first."""
    order = sorted(bundles.crls, key=lambda at: (at != bundles.own, at))
    return [crl for at in order for crl in bundles.crls[at]]


def each_once(hints: Iterable[str]) -> list[str]:
    """Each hint where it stands first: in one answer no two identities have the same (section 5.2.1)."""
    seen: set[str] = set()
    kept = []
    for hint in hints:
        kept.append("" if hint in seen else hint)
        seen.add(hint)
    return kept
