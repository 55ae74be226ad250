"""What anybody may have of the CA: signed data, as whoever checks certificates asks for it."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.crl.schedule import Span
from pki.errors import Malformed
from pki.keys import key_id
from pki.ocsp.request import decode_get
from pki.svid.x509svid import certificates_pem
from twisted_mesh.api.messages import IssuerCrl, PublishedCrls
from twisted_mesh.ca.api.request import Call, key_digest
from twisted_mesh.ca.api.response import Answer, http_date, json_answer
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.revocation.crl import NotPublished, PublishedCrl
from twisted_mesh.ca.revocation.ocsp_responder import OcspReply
from twisted_mesh.stores.records import Unknown

OCSP_REQUEST, OCSP_RESPONSE = "application/ocsp-request", "application/ocsp-response"
CRL, PEM = "application/pkix-crl", "application/x-pem-file"
#: What the root is called where an issuer is asked for.
ROOT = "root"
_IN_PEM = serialization.Encoding.PEM
_CERTIFICATE = "application/pkix-cert"
#: For how long a cache between us and others need not ask again.
_MAX_AGE = timedelta(minutes=1)


async def roots(ca: CaParts, call: Call) -> Answer:
    """The roots of the trust domain, in PEM."""
    return Answer(ca.bundle().to_pem(), content_type=PEM)


async def bundle(ca: CaParts, call: Call) -> Answer:
    """The SPIFFE bundle of the trust domain, a JWK set; with ``keys=all`` as members of the mesh ask for it."""
    asked = call.query.get("keys")
    if asked not in (None, "all"):
        raise Malformed("keys is all, or is left out")
    return Answer((ca.public_bundle() if asked is None else ca.bundle()).to_jwks())


async def crl(ca: CaParts, issuer: str | None) -> Answer:
    """The CRL of ``root``, of an issuing CA by its key id, or of the one that issues now (None).

    Raises :class:`Malformed`, :class:`Unknown` and :class:`NotPublished`.
    """
    found = await ca.publisher.crl(_key_id(ca, issuer))
    headers = {
        "etag": found.etag,
        "last-modified": http_date(found.made_at),
        **_cached(ca, found.span),
    }
    return Answer(found.der, HTTPStatus.OK, CRL, headers, is_by_date=_is_by_date(found))


async def crls(ca: CaParts, call: Call) -> Answer:
    """The CRLs of the root and of all issuing CAs, for programs that want one for each CA of a chain.

    Also of the one that issues next: who fetches them now and then has its CRL before it issues anything.
    One that cannot be made now is left out, and whoever needs it says so.
    """
    rows = [
        IssuerCrl(certificates_pem([issuer]).decode(), found.der)
        for issuer, found in await _every_crl(ca)
    ]
    return json_answer(PublishedCrls(rows))


async def crls_in_pem(ca: CaParts) -> Answer:
    """The same in PEM, each after its issuer's certificate: for another trust domain, which has our roots only."""
    every = await _every_crl(ca)
    parts = [
        certificates_pem([issuer]) + x509.load_der_x509_crl(found.der).public_bytes(_IN_PEM)
        for issuer, found in every
    ]
    return Answer(b"".join(parts), content_type=PEM, headers={"cache-control": "no-cache"})


async def _every_crl(ca: CaParts) -> Sequence[tuple[x509.Certificate, PublishedCrl]]:
    found = []
    for issuer in (
        *ca.authorities.roots,
        *(one.certificate for one in ca.authorities.in_use),
    ):
        with suppress(NotPublished):
            found.append((issuer, await ca.publisher.crl(key_id(issuer.public_key()))))
    return found


async def ocsp(ca: CaParts, request: bytes, who: str) -> Answer:
    """The answer to a request by POST. It is always one of OCSP's own (RFC 6960 section 4.2.1)."""
    reply = await ca.responder.answer(request, who)
    return Answer(reply.der, content_type=OCSP_RESPONSE)


async def ocsp_in_path(ca: CaParts, path: str, who: str) -> Answer:
    """The answer to a request by GET, which caches may give again (RFC 5019 section 6)."""
    try:
        request = decode_get(path.lstrip("/").encode("ascii", "replace"))
    except Malformed:
        request = b""  # the responder says so
    reply = await ca.responder.answer(request, who)
    return Answer(reply.der, HTTPStatus.OK, OCSP_RESPONSE, _of_reply(ca, reply))


async def issuer(ca: CaParts, name: str | None) -> Answer:
    """The certificate of an issuing CA, in DER. Raises :class:`Malformed` and :class:`Unknown`."""
    found = ca.authorities.issuer(_key_id(ca, name))
    if found is None:
        raise Unknown("no issuing CA here has this key id")
    der = found.certificate.public_bytes(serialization.Encoding.DER)
    headers = {"etag": f'"{found.key_id[:32]}"', "cache-control": "public, max-age=3600"}
    return Answer(der, HTTPStatus.OK, _CERTIFICATE, headers)


def _key_id(ca: CaParts, issuer: str | None) -> str:
    if issuer is None:
        return ca.authorities.issuing.key_id
    if issuer == ROOT:
        return ca.publisher.root.key_id
    return key_digest(issuer, "issuer") or ""


def _is_by_date(crl: PublishedCrl) -> bool:
    return not crl.shares_its_second


def _of_reply(ca: CaParts, reply: OcspReply) -> dict[str, str]:
    if reply.span is None:
        return {}
    return {
        "etag": f'"{reply.digest}"',
        "last-modified": http_date(reply.span.this_update),
        **_cached(ca, reply.span),
    }


def _cached(ca: CaParts, span: Span) -> dict[str, str]:
    left = min(_MAX_AGE, span.next_update - ca.now())
    seconds = max(0, int(left.total_seconds()))
    return {
        "expires": http_date(span.next_update),
        "cache-control": f"public, max-age={seconds}, no-transform, must-revalidate",
    }
