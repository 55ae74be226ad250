"""Many connections behind one descriptor of the reactor's: who is ready to be read is asked for all of them at once.

What the reactor does for each descriptor that is ready, a context for the log among it, takes longer than to pass on a
few bytes. Here each is only called. What is written meanwhile is sent at the end, as at the end of a reactor's round.
"""

import select
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field
from twisted.internet import error, main
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.errors import ANY_ERROR
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls.flush import Flush, flush_of

_log = logger("tls")
#: Descriptors that have their turn before others of the reactor's do.
_MOST = 512
#: Told of a connection also to whoever asks for neither.
_BROKEN = select.EPOLLERR | select.EPOLLHUP


@implementer(IReadDescriptor)
@define(eq=False)
class ReadPoll:
    """One reactor's."""

    reactor: Any
    _flush: Flush
    _poll: select.epoll = field(factory=select.epoll, init=False)
    _readers: dict[int, Any] = field(factory=dict, init=False)
    _descriptors: dict[Any, int] = field(factory=dict, init=False)
    _writers: set[Any] = field(factory=set, init=False)
    """Whom the reactor asks whether they can be written, and so hears of them too."""
    _is_known: bool = field(default=False, init=False)
    """Whether the reactor looks here."""

    def take(self, selectable: Any, attribute: str = "reactor") -> None:
        """Have ``selectable``, whose reactor is its ``attribute``, read from here once it wants to be again."""
        self.reactor.removeReader(selectable)
        setattr(selectable, attribute, self)

    def __getattr__(self, name: str) -> Any:
        """All else that a reactor does, the reactor does."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.reactor, name)

    def addReader(self, selectable: Any) -> None:
        """See :class:`IReactorFDSet`."""
        if selectable in self._descriptors:
            return
        descriptor = selectable.fileno()
        self._poll.register(descriptor, select.EPOLLIN)
        self._readers[descriptor] = selectable
        self._descriptors[selectable] = descriptor
        if not self._is_known:
            self._is_known = True
            self.reactor.addReader(self)

    def removeReader(self, selectable: Any) -> None:
        """See :class:`IReactorFDSet`."""
        descriptor = self._descriptors.pop(selectable, None)
        if descriptor is None:
            return
        del self._readers[descriptor]
        with suppress(OSError):  # it is closed
            self._poll.unregister(descriptor)

    def addWriter(self, selectable: Any) -> None:
        """See :class:`IReactorFDSet`."""
        self._writers.add(selectable)
        self.reactor.addWriter(selectable)

    def removeWriter(self, selectable: Any) -> None:
        """See :class:`IReactorFDSet`."""
        self._writers.discard(selectable)
        self.reactor.removeWriter(selectable)

    # to the reactor

    def fileno(self) -> int:
        """See :class:`IReadDescriptor`."""
        return self._poll.fileno()

    def logPrefix(self) -> str:
        """See :class:`IReadDescriptor`."""
        return "carried"

    def doRead(self) -> None:
        """Call everybody who is ready."""
        readers, flush = self._readers, self._flush
        is_held = flush.hold()
        try:
            for descriptor, event in self._poll.poll(0, _MOST):
                selectable = readers.get(descriptor)
                if selectable is None:  # another has closed it
                    continue
                try:
                    why = selectable.doRead() if event & select.EPOLLIN else main.CONNECTION_DONE
                except ANY_ERROR as problem:
                    _log.failure("a connection broke", event="protocol-broke")
                    why = problem
                if why is None:
                    continue
                if event & _BROKEN and selectable in self._writers:
                    self.removeReader(selectable)
                    self.reactor.callLater(0, self._lose_still, selectable, why)
                else:
                    self._lose(selectable, why)
        finally:
            if is_held:
                flush.release()

    def _lose_still(self, selectable: Any, why: Any) -> None:
        """One that has broken, unless the reactor has lost it meanwhile.

        In the round in which we hear of it the reactor may hear too, as it looks whether it can be written. Were the
        descriptor closed before it comes to that, it could be somebody else's by then, who has just been accepted.
        """
        if selectable.fileno() >= 0:
            self._lose(selectable, why)

    def _lose(self, selectable: Any, why: Any) -> None:
        """As the reactor does it."""
        self.removeReader(selectable)
        if isinstance(why, error.ConnectionDone) and IHalfCloseableDescriptor.providedBy(
            selectable
        ):
            selectable.readConnectionLost(Failure(why))
            return
        self.removeWriter(selectable)
        selectable.connectionLost(why if isinstance(why, Failure) else Failure(why))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, and so does everybody here."""
        for selectable in tuple(self._descriptors):
            self._lose(selectable, error.ConnectionLost())
        self._is_known = False


_of: "WeakKeyDictionary[IReactorTime, ReadPoll]" = WeakKeyDictionary()


def read_poll_of(reactor: Any) -> ReadPoll | None:
    """The one that all connections of a reactor share; None where it cannot have one."""
    if not isinstance(reactor, EPollReactor):
        return None
    found = _of.get(reactor)
    if found is None:
        found = _of[reactor] = ReadPoll(reactor, flush_of(reactor))
    return found
