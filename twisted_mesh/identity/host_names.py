"""The host names that a program's own certificate is to carry: ``--dns`` and ``--ip``."""

from pki.errors import Malformed
from pki.svid import names


def dns_option(name: str) -> str:
    """``--dns``. Raises :class:`Malformed`."""
    try:
        return names.dns_name(name)
    except Malformed as error:
        raise Malformed(f"--dns {error}") from None


def ip_option(text: str) -> names.IPAddress:
    """``--ip``. Raises :class:`Malformed`."""
    try:
        return names.address(text)
    except Malformed as error:
        raise Malformed(f"--ip {error}") from None
