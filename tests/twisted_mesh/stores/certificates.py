"""Certificates to keep: records that look like those of the CA."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pki.spiffe import SpiffeId
from twisted_mesh.stores.records import IssuedCertificate

ISSUER = "ab" * 32
OTHER_ISSUER = "cd" * 32
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
API = SpiffeId.parse("spiffe://mesh.local/service/api")
WEB = SpiffeId.parse("spiffe://mesh.local/service/web")


def issued(serial: int, **changes: Any) -> IssuedCertificate:
    """Issued at ``NOW``, an hour to live, and only intended so far."""
    facts: dict[str, Any] = {
        "issuer": ISSUER,
        "serial": serial,
        "spiffe_id": API,
        "subject": "CN=api",
        "issued_at": NOW,
        "expires_at": NOW + HOUR,
        "requester": "unix:uid:1000",
    }
    return IssuedCertificate(**facts | changes)


def der(serial: int) -> bytes:
    return b"0\x82" + serial.to_bytes(20, "big") * 30
