"""Who is at the other end of the workload socket: attested once, watched as long as somebody answers it."""

import socket
from collections.abc import Callable
from weakref import WeakKeyDictionary

from attrs import define, field
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.codes import Code
from pki.errors import PkiError
from pki.policy.policy import NoProof
from pki.policy.selector import Selector
from twisted_mesh.attest.credentials import Credentials
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.handle import NoDescriptors, ProcessGone, ProcessHandle, Unreadable
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.users import AT_ONCE, PATIENCE
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import sleep, spawn, within
from twisted_mesh.runtime.turns import Turns
from twisted_mesh.workload.interface import ICaller

_log = logger("workload")
#: Seconds before each further look at a container of which nobody could say anything.
_LOOK_AGAIN = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)


class CallerGone(PkiError):
    """The process that connected is no more, or is another program: what was made for it is for nobody else."""

    code = Code.PROCESS_GONE


@implementer(ICaller)
@define(eq=False)
class Caller:
    """A process, by the socket that it connected: the kernel knows it by that, whoever bears its PID by now.

    Its end is told by the kernel at once, through a pidfd that the reactor watches (Linux from 6.5; on older ones
    through one of the PID that was recorded at connect, which had to be alive when it was attested). That
    it has become another program is seen by :meth:`ProcessHandle.program`, whenever :meth:`has_gone` is asked:
    the kernel tells nobody of that by itself.
    """

    connected: socket.socket
    selectors: frozenset[Selector]
    uid: int
    pid: int
    reactor: IReactorFDSet
    _program: tuple[object, ...] | None = field(default=None, init=False)
    """None where the kernel does not show it."""
    _handle: ProcessHandle | None = field(default=None, init=False)
    """Kept while somebody watches."""
    _reader: "_Exit | None" = field(default=None, init=False)
    _watchers: list[Callable[[], None]] = field(factory=list, init=False)
    _has_gone: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        with self._opened() as handle:
            self._program = _program_of(handle)

    def has_gone(self) -> bool:
        """Whether it has exited or become another program; then it stays so.

        Raises :class:`NoDescriptors` where that cannot be found out just now.
        """
        if self._has_gone:
            return True
        try:
            if self._handle is not None:
                self._look(self._handle)
            else:
                with self._opened() as handle:
                    self._look(handle)
        except NoDescriptors:
            raise
        except (ProcessGone, Unreadable):
            self._has_gone = True
        return self._has_gone

    def learn(self, selectors: frozenset[Selector]) -> None:
        """More is known of it: whoever watches looks again."""
        self.selectors = selectors
        for look in tuple(self._watchers):
            look()

    def watch(self, gone: Callable[[], None]) -> Callable[[], None]:
        """Have ``gone`` called as soon as it has exited, and when it may buy more; what is returned ends that.

        Raises :class:`NoDescriptors`.
        """
        self._watchers.append(gone)
        if self._handle is None and not self._has_gone:
            try:
                self._handle = self._opened()
            except NoDescriptors:
                self._watchers.remove(gone)
                raise
            except (ProcessGone, Unreadable):
                self._exited()
            else:
                self._reader = _Exit(self._handle.descriptor, self._exited)
                self.reactor.addReader(self._reader)

        def stop() -> None:
            if gone in self._watchers:
                self._watchers.remove(gone)
            if not self._watchers:
                self._close()

        return stop

    def _look(self, handle: ProcessHandle) -> None:
        """Raises :class:`ProcessGone` where it is not what was attested."""
        handle.must_live()
        if self._program is not None and _program_of(handle) != self._program:
            raise ProcessGone("the process has become another program")

    def _opened(self) -> ProcessHandle:
        """Raises :class:`ProcessGone`, :class:`Unreadable`."""
        if self.connected.fileno() < 0:
            raise ProcessGone("the connection is closed")
        handle = ProcessHandle.of_peer(self.connected)
        return ProcessHandle.of_pid(self.pid) if handle is None else handle

    def _exited(self) -> None:
        self._has_gone = True
        self._close()
        watchers, self._watchers = self._watchers, []
        for gone in watchers:
            gone()

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self.reactor.removeReader(reader)
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


@implementer(IReadDescriptor)
@define(eq=False)
class _Exit:
    """A pidfd for the reactor: it is readable once the process has exited."""

    descriptor: int
    exited: Callable[[], None]

    def fileno(self) -> int:
        """The pidfd."""
        return self.descriptor

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "workload"

    def doRead(self) -> None:
        """It has exited."""
        self.exited()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is being stopped."""


@define(eq=False)
class Callers:
    """Attests those who connect, each connection once."""

    attestor: ProcessAttestor
    reactor: IReactor
    containers: LocalWorkloads | None = None
    """Asked out of turn: what is slow to tell of some is not in the way of others."""
    _turns: Turns = field(factory=lambda: Turns(AT_ONCE), init=False)
    _known: "WeakKeyDictionary[socket.socket, Caller]" = field(
        factory=WeakKeyDictionary, init=False
    )

    async def of(self, connected: object) -> Caller:
        """Who has connected. Raises :class:`NoProof`, also where it has gone already."""
        evidence = Evidence.of(connected)
        if evidence.process is None:
            raise NoProof("workloads are known by a unix socket of this machine: connect to that")
        known = self._known.get(evidence.process)
        if known is None:
            found = await self._attested(evidence)
            if found is None or found.uid is None:
                raise NoProof("the kernel does not say who has connected")
            uid = found.uid
            if self.containers is not None:
                found = await self.containers.add(evidence.process, found)
            pid = Credentials.of_peer(evidence.process).pid
            try:
                known = Caller(evidence.process, found.selectors, uid, pid, self.reactor)
            except (ProcessGone, Unreadable) as error:
                raise NoProof(
                    f"the process that connected is not there any more ({error}): stay until the answer is there"
                ) from None
            self._known[evidence.process] = known
            if self.containers is not None and self.containers.lacks(evidence.process):
                _ = spawn(self._complete(known, found), "looking again at a container")
        return known

    async def _complete(self, known: Caller, found: Attestation) -> None:
        """Look again, less and less often: a pod may be listed late, and its client keeps its connection."""
        if self.containers is None:
            return
        for pause in _LOOK_AGAIN:
            await sleep(self.reactor, pause)
            if known.connected.fileno() < 0:
                return
            try:
                if known.has_gone():
                    return
                whole = await self.containers.add(known.connected, found)
            except (NoProof, NoDescriptors):
                return
            if not self.containers.lacks(known.connected):
                known.learn(whole.selectors)
                return

    async def _attested(self, evidence: Evidence) -> Attestation | None:
        """In its turn: of many users who come at once only a few are looked up by name together.

        Out of turn once as much time is over as a name may take: then it is attested without, as is told.
        """
        try:
            await within(self.reactor, PATIENCE, self._turns.acquire())
        except TimeoutError:
            return await self.attestor.attest(evidence)
        try:
            return await self.attestor.attest(evidence)
        finally:
            self._turns.release()


def _program_of(handle: ProcessHandle) -> tuple[object, ...] | None:
    try:
        return handle.program()
    except NoDescriptors:
        raise
    except Unreadable:
        return None


__all__ = ["Caller", "CallerGone", "Callers"]
