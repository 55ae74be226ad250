"""The head of an answer, for a client: bounded, since Twisted takes as many headers as come."""

import re
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from twisted_mesh.http.answer_reader import LARGEST_HEAD

_END = re.compile(rb"\r?\n\r?\n")
_INTERIM = re.compile(rb"HTTP/[0-9.]+ 1[0-9][0-9]\b")
#: Two lines of a head that are none, wherever in a line the first of them begins.
_NONSENSE = b":\n:\n"


@implementer(IStreamClientEndpoint)
@define(eq=False)
class BoundedHeads:
    """Connects by ``endpoint``, for a client that gives up whoever sends a head without end as one that speaks no HTTP.

    On a connection that is kept only the first head is bounded.
    """

    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        """The protocol, connected."""
        return self.endpoint.connect(protocolFactory).addCallback(_bounded)


def _bounded(protocol: Any) -> Any:
    protocol.dataReceived = _Head(protocol.dataReceived).take
    return protocol


@define(eq=False)
class _Head:
    """Counts what comes, and hands it on."""

    receive: Any
    _heard: bytearray | None = field(factory=bytearray, init=False)
    """What has come of the present head; None once it is over."""
    _before: int = field(default=0, init=False)
    """Bytes of interim answers."""

    def take(self, data: bytes) -> None:
        if self._heard is not None and self._is_too_long(self._heard, data):
            self._heard = None
            data = _NONSENSE
        self.receive(data)

    def _is_too_long(self, heard: bytearray, data: bytes) -> bool:
        # The end may have begun in what came before.
        searched = max(0, len(heard) - 3)
        heard += data
        while (end := _END.search(heard, searched)) is not None:
            if _INTERIM.match(heard) is None:
                self._heard = None
                return self._before + end.start() > LARGEST_HEAD
            self._before += end.end()
            del heard[: end.end()]
            searched = 0
        return self._before + len(heard) > LARGEST_HEAD
