"""What links belong to."""

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.logger import Logger

from twisted_mesh.limits.rate_limit import LimitedLog
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.proxy.seam import Protocols
from twisted_mesh.proxy.tally import Tally

if TYPE_CHECKING:
    from twisted_mesh.proxy.link import Link


class IFront(Protocol):
    """A listener that is running."""

    @property
    def listener(self) -> Listener: ...
    @property
    def protocols(self) -> Protocols: ...
    @property
    def clock(self) -> IReactorTime: ...
    @property
    def log(self) -> Logger: ...
    @property
    def warnings(self) -> LimitedLog: ...
    @property
    def tally(self) -> Tally: ...

    def dial(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Reach the target; fails with a :class:`PkiError`."""

    def opened(self, link: "Link") -> None:
        """It has a caller: it begins now, or once there is room."""

    def closed(self, link: "Link") -> None:
        """Both of its sides are gone."""
