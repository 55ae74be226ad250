"""Which groups a client offers: read of its first bytes, which whoever refuses it for them can tell."""

from collections.abc import Mapping

#: Of IANA's registry of supported groups, those that are met.
GROUPS: Mapping[int, str] = {
    0x0017: "secp256r1",
    0x0018: "secp384r1",
    0x0019: "secp521r1",
    0x001D: "x25519",
    0x001E: "x448",
    0x001F: "brainpoolP256r1tls13",
    0x0020: "brainpoolP384r1tls13",
    0x0021: "brainpoolP512r1tls13",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0102: "ffdhe4096",
    0x0103: "ffdhe6144",
    0x0104: "ffdhe8192",
    0x0200: "MLKEM512",
    0x0201: "MLKEM768",
    0x0202: "MLKEM1024",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
    0x11EE: "curveSM2MLKEM768",
    0x6399: "X25519Kyber768Draft00",
}
_HANDSHAKE, _CLIENT_HELLO, _SUPPORTED_GROUPS = 0x16, 0x01, 0x000A
#: More are not told.
_MOST = 16


class _Short(Exception):
    """The bytes end before what is read does."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise _Short
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> "_Reader":
        """What has its length before it, in so many bytes (RFC 8446 section 3.4)."""
        return _Reader(self.take(self.number(size)))

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)


def offered_groups(data: bytes) -> tuple[str, ...] | None:
    """The groups in the ClientHello that ``data`` begins with, the dearest first; None if it is none, or has none.

    Of GREASE (RFC 8701) nothing is told, and of groups without a name here their number.
    """
    try:
        reader = _Reader(_first_message(data))
        reader.take(2 + 32)  # version and random
        for size in (1, 2, 1):  # session, ciphers, compression
            reader.vector(size)
        extensions = reader.vector(2)
        while not extensions.is_over:
            kind, body = extensions.number(2), extensions.vector(2)
            if kind == _SUPPORTED_GROUPS:
                return _named(body.vector(2))
    except _Short:
        pass
    return None


def _named(groups: _Reader) -> tuple[str, ...]:
    found: list[str] = []
    while not groups.is_over and len(found) < _MOST:
        number = groups.number(2)
        if number & 0x0F0F != 0x0A0A or number >> 8 != number & 0xFF:
            found.append(GROUPS.get(number, f"0x{number:04x}"))
    return tuple(found)


def _first_message(data: bytes) -> bytes:
    """The body of a ClientHello, which may lie in several records. Raises :class:`_Short`."""
    records, message = _Reader(data), b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        if records.number(1) != _HANDSHAKE:
            raise _Short
        records.take(2)
        message += records.take(records.number(2))
        if message[:1] not in (b"", bytes((_CLIENT_HELLO,))):
            raise _Short
    return message[4 : 4 + int.from_bytes(message[1:4])]
