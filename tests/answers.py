"""OCSP answers for tests: good ones, and every kind that nobody may believe."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from pki.ocsp.request import OcspRequest
from pki.ocsp.sign import (
    ErrorStatus,
    Responder,
    Standing,
    error_response,
    single_responses,
)
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, Mesh, key

#: From a mesh, a certificate of it and the time to an OCSPResponse in DER.
Answering = Callable[[Mesh, x509.Certificate, datetime], bytes]


def respond(
    request: OcspRequest,
    responder: Responder,
    now: datetime,
    *,
    standing: Standing | Revocation = Standing.GOOD,
    lives: timedelta = HOUR,
    nonce: bytes | None = None,
) -> bytes:
    """What ``responder`` says to ``request``: the same of each certificate."""
    told = single_responses(
        request,
        responder.identity,
        lambda *_: standing,
        this_update=now,
        next_update=now + lives,
    )
    return asyncio.run(responder.respond(told, produced_at=now, nonce=nonce))


def answer(
    ca: Mesh,
    cert: x509.Certificate,
    now: datetime,
    *,
    responder: Responder | None = None,
    standing: Standing | Revocation = Standing.GOOD,
    lives: timedelta = HOUR,
) -> bytes:
    """An answer about ``cert``, by the issuing CA itself unless another responder is given."""
    responder = responder or Responder(ca.issuing.certificate, ca.issuing.key)
    request = OcspRequest((responder.identity.cert_id(cert.serial_number),))
    return respond(request, responder, now, standing=standing, lives=lives)


def revoked(ca: Mesh, cert: x509.Certificate, now: datetime) -> Revocation:
    return Revocation(
        ca.issuing.key_id, cert.serial_number, now, Reason.KEY_COMPROMISE, cert.not_valid_after_utc
    )


def delegate(ca: Mesh, now: datetime) -> Responder:
    """A responder that the CA has certified."""
    certificate = asyncio.run(ca.issuing.create_responder(key("ocsp"), now))
    return Responder(ca.issuing.certificate, key("ocsp"), certificate)


def _of_another(ca: Mesh, cert: x509.Certificate, now: datetime) -> bytes:
    return answer(ca, ca.leaf(now=now, leaf_key=key("another")), now)


def _flipped(ca: Mesh, cert: x509.Certificate, now: datetime) -> bytes:
    der = bytearray(answer(ca, cert, now))
    der[-1] ^= 1  # of the signature
    return bytes(der)


def _unauthorised(ca: Mesh, cert: x509.Certificate, now: datetime) -> bytes:
    """By a workload of the mesh, whose certificate does not let it answer."""
    workload = ca.leaf(now=now, leaf_key=key("workload"))
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert,
        ca.issuing.certificate,
        SHA256(),
        ocsp.OCSPCertStatus.GOOD,
        now,
        now + HOUR,
        None,
        None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, workload)
    builder = builder.certificates([workload])
    return builder.sign(key("workload").private_key, SHA256()).public_bytes(Encoding.DER)


#: Answers of which none shows that the certificate is good, and the code that says why.
BAD: dict[str, tuple[Answering, str]] = {
    "revoked": (lambda ca, c, now: answer(ca, c, now, standing=revoked(ca, c, now)), "revoked"),
    "unknown": (
        lambda ca, c, now: answer(ca, c, now, standing=Standing.UNKNOWN),
        "ocsp-unknown",
    ),
    "of another certificate": (_of_another, "ocsp-other-certificate"),
    "stale": (lambda ca, c, now: answer(ca, c, now - HOUR / 2, lives=HOUR / 4), "ocsp-stale"),
    "from the future": (lambda ca, c, now: answer(ca, c, now + HOUR), "ocsp-not-yet-valid"),
    "unsigned": (_flipped, "ocsp-unsigned"),
    "by an unauthorised responder": (_unauthorised, "ocsp-unauthorized-responder"),
    "no answer at all": (
        lambda ca, c, now: error_response(ErrorStatus.TRY_LATER),
        "ocsp-refused",
    ),
}
