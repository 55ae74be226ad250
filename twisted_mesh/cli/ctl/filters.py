"""The filters of ``cert list`` and ``cert revoke`` as the CA's API understands them, checked before it is asked."""

from collections.abc import Callable, Mapping

from pki.errors import PkiError, printable
from pki.serial import parse_serial, serial_hex
from pki.spiffe import SpiffePattern
from pki.validity import parse_rfc3339
from twisted_mesh.cli.ctl.key_digests import digest_in, issuer_meant, key_meant
from twisted_mesh.cli.ctl.options import Unusable


def understood(filters: Mapping[str, str | None]) -> dict[str, str]:
    """Those that were given, by the names of the API's parameters."""
    found = {}
    for name, text in filters.items():
        if text is not None:
            try:
                found[name] = _READERS[name](text)
            except PkiError as error:
                raise Unusable(f"--{name.replace('_', '-')}: {error}") from None
    return found


def _names(text: str) -> str:
    """A SPIFFE ID or a subtree: what an index can find."""
    pattern = SpiffePattern.parse(text)
    literal = pattern.segments[:-1] if pattern.segments[-1:] == ("**",) else pattern.segments
    if "*" in literal:
        raise Unusable("--spiffe-id: here a pattern has no *, only ** at its end for a subtree")
    return str(pattern)


def digest_of(text: str, who_takes: str) -> str:
    """A SHA-256, as people copy it from somewhere. Raises :class:`Unusable`."""
    digest = digest_in(text)
    if digest is None:
        raise Unusable(f"{printable(text, 80)!r} is no SHA-256: {who_takes} 64 digits of hex")
    return digest


def _time(text: str) -> str:
    parse_rfc3339(text)
    return text


_READERS: dict[str, Callable[[str], str]] = {
    "spiffe_id": _names,
    "status": str,
    "serial": lambda text: serial_hex(parse_serial(text)),
    "issuer": issuer_meant,
    "key": key_meant,
    "entry": str,
    "issued_after": _time,
    "issued_before": _time,
    "expires_after": _time,
    "expires_before": _time,
}
