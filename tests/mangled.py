"""Secrets as they come out of chats, editors and shells, and whether a piece of one is in what was said of them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from pki.policy.join_token import JoinToken

#: What is done to a secret; none of it makes it less of one.
MANGLINGS: dict[str, Callable[[bytes], bytes]] = {
    "line breaks lost": lambda data: data.replace(b"\n", b""),
    "line breaks to spaces": lambda data: data.replace(b"\n", b" "),
    "cut short": lambda data: data[: len(data) * 2 // 3],
    "its head lost": lambda data: data[len(data) // 3 :],
    "one character changed": lambda data: _changed(data, len(data) // 2),
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16"),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "twice": lambda data: data + data,
    "dashes and marks damaged": lambda data: data.replace(b"-----", b"----").replace(b"_", b"-"),
    "capitals": lambda data: data.upper(),
    "quoted": lambda data: b'secret = "' + data.replace(b"\n", b"\\n") + b'",',
    "an empty line first": lambda data: b"\n" + data,
    "broken in the middle": lambda data: data[: len(data) // 2] + b" \n" + data[len(data) // 2 :],
    "a NUL within": lambda data: data[: len(data) // 2] + b"\0" + data[len(data) // 2 :],
    "its END line lost": lambda data: (
        data[: data.rfind(b"-----END")] if b"-----END" in data else data[:-1]
    ),
    "labels without end": lambda data: data.replace(b"-----\n", b" "),
}
_PIECE = 6


@frozen
class Secret:
    """What nobody may say a piece of."""

    text: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    """The part of it that is secret: not the words around it."""
    public: bytes = field(default=b"", repr=False)
    """What of that every other one has too."""

    @property
    def pieces(self) -> set[str]:
        """Six characters each, in small letters: what was made capitals is still it."""
        return _pieces(self.secret) - _pieces(self.public)

    def found_in(self, said: str) -> list[str]:
        """The pieces that were said, however they were split or escaped."""
        plain = re.sub(r"\\x00|\0|\\n|\\r|\\\\|\s", "", said).lower()
        return sorted(piece for piece in self.pieces if piece in plain)


def secret_key(password: bytes | None = None) -> Secret:
    """A key, the same each time: so is what is found of it. Its kind and its curve are no secret."""
    pems = [
        ec.derive_private_key(number, ec.SECP256R1()).private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(password) if password else NoEncryption(),
        )
        for number in (0x5EC2E7 << 200 | 0x1234567890ABCDEF, 0xFEDCBA << 220 | 0x987654321)
    ]
    first, second = (b"".join(pem.splitlines()[1:-1]) for pem in pems)
    return Secret(pems[0], first, second[:60])


def secret_token() -> Secret:
    """A whole token, the same each time."""
    text = JoinToken.parse("mj1_qzgfdhnx66trvx4m2gwshdm4h7cx47q7ql3p4csj").text.encode()
    return Secret(text, text.removeprefix(b"mj1_"))


def _pieces(text: bytes) -> set[str]:
    lower = text.decode("ascii").lower()
    return {lower[at : at + _PIECE] for at in range(len(lower) - _PIECE + 1)}


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    """All that is logged meanwhile, as text and in its fields."""
    lines: list[str] = []

    def note(event: LogEvent) -> None:
        lines.append(f"{formatEvent(event)} {event!r}")

    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


def _changed(data: bytes, at: int) -> bytes:
    return data[:at] + (b"a" if data[at : at + 1] != b"a" else b"b") + data[at + 1 :]
