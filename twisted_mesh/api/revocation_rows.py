"""Revocations as rows of JSON, and back: ``revocation_of(row_of(x)) == x``."""

from pki.serial import parse_serial, serial_hex
from pki.svid.revocation_set import Reason, Revocation
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.api.messages import RevocationRow


def row_of(revoked: Revocation) -> RevocationRow:
    """As whoever checks certificates is told of it."""
    return RevocationRow(
        revoked.issuer,
        serial_hex(revoked.serial),
        rfc3339(revoked.revoked_at),
        str(revoked.reason),
        rfc3339(revoked.expires_at),
    )


def revocation_of(row: RevocationRow) -> Revocation:
    """What was told; a reason that is not known is none. Raises :class:`pki.errors.Malformed`."""
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
