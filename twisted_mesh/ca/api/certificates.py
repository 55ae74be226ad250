"""The routes of the record: certificates listed, shown and revoked."""

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
from cryptography import x509

from pki.errors import Malformed
from pki.policy.principal import Principal
from pki.serial import parse_serial, serial_hex
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339
from twisted_mesh.api.messages import (
    LARGEST_PAGE,
    CertificateDetails,
    CertificatePage,
    CertificateRow,
    Revoked,
    RevokedMany,
    RevokeRequest,
)
from twisted_mesh.ca.api.request import Call, certificate_query, given_reason
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import IssuedCertificate


async def list_certificates(ca: CaParts, call: Call) -> Answer:
    """A :class:`CertificatePage` of those that the parameters ask for."""
    page = await ca.record.certificates(certificate_query(call.query, ca.now()))
    now, count = ca.now(), ca.reports.now()
    rows = [_row(found, now, count) for found in page.certificates]
    return json_answer(CertificatePage(rows, page.next))


async def show_certificate(ca: CaParts, call: Call) -> Answer:
    """One as :class:`CertificateDetails`. Raises :class:`Unknown`."""
    known = await ca.record.certificate(parse_serial(call.rest))
    pem = None
    if known.der is not None:
        pem = certificates_pem([x509.load_der_x509_certificate(known.der)]).decode()
    row = _row(known, ca.now(), ca.reports.now())
    return json_answer(CertificateDetails(**msgspec.structs.asdict(row), certificate=pem))


async def revoke(ca: CaParts, call: Call) -> Answer:
    """Revoke one, or many: :class:`Revoked` or :class:`RevokedMany`. Raises :class:`Malformed`."""
    asked = call.read(RevokeRequest)
    if (asked.serial is None) == (asked.serials is None):
        raise Malformed("the body does not fit: it has either serial or serials")
    reason = given_reason(asked.reason)
    if asked.serials is not None:
        return await _revoke_all(ca, call.principal, asked.serials, reason)
    serial = parse_serial(asked.serial or "")
    return json_answer(_revoked(await ca.certificates.revoke(call.principal, serial, reason)))


async def _revoke_all(
    ca: CaParts, principal: Principal, given: Sequence[str], reason: Reason
) -> Answer:
    if not 0 < len(given) <= LARGEST_PAGE:
        raise Malformed(f"serials is a list of 1 to {LARGEST_PAGE} serials")
    serials = list(dict.fromkeys(map(parse_serial, given)))
    revoked = await ca.certificates.revoke_all(principal, serials, reason)
    unknown = set(serials) - {found.serial for found in revoked}
    return json_answer(
        RevokedMany(
            [_revoked(found) for found in revoked],
            [serial_hex(serial) for serial in serials if serial in unknown],
        )
    )


def _row(
    certificate: IssuedCertificate, now: datetime, count: Callable[[str, int], int]
) -> CertificateRow:
    return CertificateRow(
        serial=serial_hex(certificate.serial),
        subject=certificate.subject,
        spiffe_id=str(certificate.spiffe_id),
        issued_at=rfc3339(certificate.issued_at),
        expires_at=rfc3339(certificate.expires_at),
        status=str(certificate.status(now)),
        revoked_at=optional_time(certificate.revoked_at),
        reason=str(certificate.reason) if certificate.reason else None,
        issuer=certificate.issuer,
        key=certificate.key,
        requester=certificate.requester,
        entry=certificate.entry,
        connections=count(certificate.issuer, certificate.serial),
    )


def _revoked(certificate: IssuedCertificate) -> Revoked:
    if certificate.revoked_at is None:
        raise AssertionError("a certificate was revoked and is not revoked")
    return Revoked(
        serial_hex(certificate.serial), rfc3339(certificate.revoked_at), str(certificate.reason)
    )
