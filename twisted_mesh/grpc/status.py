"""How a call ends: gRPC's status codes, and the text beside one as it stands in a header."""

from enum import IntEnum
from typing import ClassVar

from pki.codes import Code
from pki.errors import PkiError, Problem, printable

#: Of a text, in characters: with each of them percent-encoded it still fits into any client's header list (8 KiB).
_LONGEST = 2000


class Status(IntEnum):
    """The codes of gRPC (statuscodes.md of its specification)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def parse(cls, text: str) -> "Status":
        """As ``grpc-status`` has it; what is no code is UNKNOWN."""
        try:
            return (
                cls(int(text)) if text.isascii() and text.isdigit() and len(text) <= 3 else cls(2)
            )
        except ValueError:
            return cls.UNKNOWN


class GrpcError(PkiError):
    """A call that ended without success, at the side that called; or that is to end so, at the side that serves."""

    code: ClassVar[Code] = Code.REFUSED_BY_PEER

    def __init__(self, status: Status, text: str) -> None:
        self.status = status
        self.text = text
        """Without the status' name: what the other side is told, or has told."""
        super().__init__(f"{status.name}: {printable(text, _LONGEST)}" if text else status.name)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One: its own text."""
        return (Problem(_CODES.get(self.status, self.code), str(self)),)


_CODES = {
    Status.UNAVAILABLE: Code.UNREACHABLE,
    Status.PERMISSION_DENIED: Code.NOT_AUTHORIZED,
    Status.INVALID_ARGUMENT: Code.MALFORMED,
}


def encode_message(text: str) -> bytes:
    """``text`` as ``grpc-message`` has it: percent-encoded UTF-8 (gRPC over HTTP/2, "Status-Message")."""
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in short.encode("utf-8", "replace")
    )


def decode_message(value: bytes) -> str:
    """What :func:`encode_message` made. Never raises: what is not percent-encoded stays as it stands."""
    out = bytearray()
    at = 0
    while at < len(value):
        digits = value[at + 1 : at + 3]
        if value[at] == 0x25 and len(digits) == 2 and _HEX.issuperset(digits):
            out.append(int(digits, 16))
            at += 3
        else:
            out.append(value[at])
            at += 1
    return out.decode("utf-8", "replace")


_HEX = frozenset(b"0123456789abcdefABCDEF")
