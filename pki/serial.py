"""Serial numbers: made, read and written in one way everywhere (RFC 5280 section 4.1.2.2)."""

import re
import secrets

from pki.errors import Malformed, discreet

_HEX = re.compile(r"[0-9a-f]{1,40}", re.ASCII)

#: Our own serials: 16 bytes, 126 of their bits random. The two top bits are 01, so that every one
#: is positive and has the same length in DER and in hex.
_BYTES = 16


def new_serial() -> int:
    """A fresh serial number with 126 random bits."""
    return secrets.randbits(_BYTES * 8 - 2) | 1 << (_BYTES * 8 - 2)


def serial_hex(serial: int) -> str:
    """Whole bytes in lower-case hex, for programs: ``1a2b3c``."""
    digits = f"{serial:x}"
    size = len(digits)
    return digits.zfill(size + 1) if size % 2 else digits


def serial_pairs(serial: int) -> str:
    """Colon-separated pairs, for people: ``1A:2B:3C``."""
    if serial < 0:  # no certificate of ours, but one that is looked at
        return "-" + serial_pairs(-serial)
    return bytes.fromhex(serial_hex(serial)).hex(":").upper()


def parse_serial(text: str) -> int:
    """Hex in either case, with or without colons. Raises :class:`Malformed`."""
    digits = text.lower()
    if ":" in digits:
        pairs = digits.split(":")
        digits = "".join(pairs) if all(len(pair) == 2 for pair in pairs) else ""
    if not _HEX.fullmatch(digits):
        raise Malformed(
            f"{discreet(text, 60)!r} is not a serial number: write it in hex, like 1a2b3c or 1A:2B:3C"
        )
    return int(digits, 16)
