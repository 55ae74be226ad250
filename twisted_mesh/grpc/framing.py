"""What stands around a message on the wire: five bytes before it, and how long the caller waits for the answer."""

import re
from collections.abc import Iterator

from twisted_mesh.grpc.status import GrpcError, Status

_PREFIX = 5
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def frame(message: bytes) -> bytes:
    """``message`` as it is sent: uncompressed, its length, itself (gRPC over HTTP/2, "Length-Prefixed-Message")."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Messages out of bytes as they come, in whatever pieces; none is kept that is larger than ``most`` bytes."""

    __slots__ = ("_buffer", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether the last message is whole: nothing of another one has come."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole with ``data``.

        Raises :class:`GrpcError` for one that is too large as soon as its length is there, and for a compressed one.
        """
        self._buffer += data
        while len(self._buffer) >= _PREFIX:
            flag, length = self._buffer[0], int.from_bytes(self._buffer[1:_PREFIX], "big")
            if flag:
                raise GrpcError(
                    Status.INTERNAL if flag == 1 else Status.INVALID_ARGUMENT,
                    "a message is marked as compressed, and its call named no compression: send it as it is",
                )
            if length > self._most:
                raise GrpcError(
                    Status.RESOURCE_EXHAUSTED,
                    f"a message of {length} bytes is too large: at most {self._most} are taken",
                )
            end = _PREFIX + length
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[_PREFIX:end])
            del self._buffer[:end]
            yield message


def parse_timeout(text: str) -> float:
    """``grpc-timeout`` in seconds: ``10S``, ``250m``. Raises :class:`GrpcError`."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise GrpcError(
            Status.INVALID_ARGUMENT,
            "grpc-timeout is no time: it has up to eight digits and one of H, M, S, m, u, n",
        )
    return int(match[1]) * _UNITS[match[2]]


def format_timeout(seconds: float) -> str:
    """As :func:`parse_timeout` reads it, in the finest unit that holds it: never longer than the time is."""
    for unit in "num":
        count = int(seconds / _UNITS[unit])
        if count < 10**8:
            return f"{max(count, 0)}{unit}"
    return f"{min(int(seconds), 10**8 - 1)}S"
