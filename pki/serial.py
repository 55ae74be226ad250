"""Serial numbers: made, read and written in one way everywhere (RFC 5280 section 4.1.2.2)."""

import os
import re

from pki.errors import Malformed, discreet

_HEX = re.compile(r"[0-9a-f]{1,40}", re.ASCII)

#: Our own serials: 16 bytes, 126 of their bits random. The two top bits are 01, so that every one
#: is positive and has the same length in DER and in hex.
_BYTES = 16
_RANDOM = (1 << _BYTES * 8 - 2) - 1
#: The system is asked for so many at once.
_DRAWN = 32
_drawn: list[bytes] = []
# A child must not give out what its parent gives out too.
os.register_at_fork(after_in_child=_drawn.clear)


def new_serial() -> int:
    """A fresh serial number with 126 random bits."""
    try:
        drawn = _drawn.pop()  # which no other thread can get then
    except IndexError:
        block = os.urandom(_BYTES * _DRAWN)
        drawn, *others = (block[at : at + _BYTES] for at in range(0, len(block), _BYTES))
        _drawn.extend(others)
    return int.from_bytes(drawn, "big") & _RANDOM | _RANDOM + 1


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
