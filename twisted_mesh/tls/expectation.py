"""An attempt to connect, and how it ends."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol

from twisted_mesh.runtime.reach import Reach
from twisted_mesh.tls.verify import LeafCheck

if TYPE_CHECKING:
    from twisted_mesh.tls.connection import MeshConnection


@define(eq=False)
class Expectation:
    """One attempt to connect, until it is known how it ended."""

    server_name: str | None
    leaf_checks: Sequence[LeafCheck]
    reach: Reach | None = None
    """Where it leads, and how far it came."""
    attempt: "Deferred[IProtocol] | None" = None
    connection: "MeshConnection | None" = None
    outcome: "Deferred[IProtocol]" = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.outcome = Deferred(lambda _: self._cancel())

    def _cancel(self) -> None:
        if self.attempt is not None:
            self.attempt.cancel()
        if self.connection is not None:
            self.connection.abortConnection()

    def established(self, protocol: IProtocol) -> None:
        """The server has proven who it is, and ``protocol`` is connected. Only the first outcome counts."""
        if not self.outcome.called:
            self.outcome.callback(protocol)

    def failed(self, error: Exception) -> None:
        """There will be no connection, because of ``error``. Only the first outcome counts."""
        if not self.outcome.called:
            self.outcome.errback(error)
