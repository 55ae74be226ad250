"""What there is to find out of a process of this machine by whoever runs its container."""

import socket
from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime

from pki.errors import PkiError
from pki.policy.policy import NoProof
from pki.policy.selector import Selector
from twisted_mesh.attest.container_cgroup import Container, container_of
from twisted_mesh.attest.container_source import ContainerSource, Told
from twisted_mesh.attest.evidence import Attestation
from twisted_mesh.attest.handle import ProcessGone, ProcessHandle, Unreadable
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import sleep, spawn, within
from twisted_mesh.runtime.turns import Turns

_log = logger("attest")

#: Seconds that a caller waits for what is said of its container; then it is attested without.
PATIENCE = 5.0
#: Seconds for which what was said is believed, and for which that nothing was.
REMEMBERED_FOR, FORGOTTEN_FOR = 5.0, 1.0
#: Questions under way at once, of all containers.
AT_ONCE = 4
#: How many containers are remembered, and of how many it is remembered what the log was told.
_MOST = 1024

#: What stands for no source alone.
_ALL = "all"
_Words = tuple[Told, ...]


@define(eq=False, repr=False)
class LocalWorkloads:
    """Asks the runtimes and the kubelet of this machine about the containers of callers.

    Nothing is asked about a process whose cgroups are no container's, which only root makes; about a container it is
    asked once for all of its callers together, and once for a connection. A source that is away, slow or wrong leaves
    out its own selectors and nothing else, and the log has that once.
    """

    clock: IReactorTime
    sources: Sequence[ContainerSource]
    _turns: Turns = field(factory=lambda: Turns(AT_ONCE), init=False)
    _seen: "WeakKeyDictionary[socket.socket, tuple[Container, frozenset[Selector]]]" = field(
        factory=WeakKeyDictionary, init=False
    )
    _lacking: "WeakSet[socket.socket]" = field(factory=WeakSet, init=False)
    _known: OrderedDict[Container, tuple[float, _Words]] = field(factory=OrderedDict, init=False)
    _waiting: dict[Container, list[Deferred[_Words]]] = field(factory=dict, init=False)
    _complaints: OrderedDict[tuple[str, str], str] = field(factory=OrderedDict, init=False)
    """What the log was told, by the source and the container; empty where all is well again."""

    def replace(self, sources: Sequence[ContainerSource]) -> None:
        """Ask these from now on; what others have said is believed of nobody who comes after this."""
        self.sources = sources
        self._seen.clear()
        self._known.clear()
        self._complaints.clear()

    async def add(self, connected: socket.socket, seen: Attestation) -> Attestation:
        """The same, with what is said of its container. Raises :class:`NoProof` where the process is there no more."""
        try:
            handle = ProcessHandle.of_peer(connected)
            if handle is None:  # nothing that is read in /proc would be sure to be its own
                return seen
            with handle:
                container = _container(handle)
                if container is None:
                    return seen
                selectors = await self._selectors(connected, container)
                # What was said is of the container that it was in; it must be the one that it is in.
                if _container(handle) != container:
                    return seen
                handle.must_live()
        except (ProcessGone, Unreadable) as error:
            raise NoProof(
                f"the process that connected is not there to vouch for this request ({error}): connect again, and "
                "stay until the answer is there"
            ) from None
        if selectors:
            self._seen[connected] = container, selectors
            self._lacking.discard(connected)
        elif any(source.speaks_of(container) for source in self.sources):
            self._lacking.add(connected)
        return evolve(seen, selectors=seen.selectors | selectors)

    def lacks(self, connected: socket.socket) -> bool:
        """Whether nobody could say anything of its container yet, though somebody should."""
        return connected in self._lacking

    async def _selectors(
        self, connected: socket.socket, container: Container
    ) -> frozenset[Selector]:
        before = self._seen.get(connected)
        if before is not None and before[0] == container:
            return before[1]
        found: frozenset[Selector] = frozenset()
        for told in await self._told(container):
            if told.places is not None and not told.places & container.places:
                self._complain(
                    _ALL,
                    container,
                    "its name is that of a container whose first process is elsewhere",
                )
                continue
            found |= told.selectors
        return found

    async def _told(self, container: Container) -> _Words:
        """What is said of it, now or a moment ago; nothing where that takes too long."""
        known = self._known.get(container)
        if known is not None and self.clock.seconds() < known[0]:
            return known[1]
        waiter: Deferred[_Words] = Deferred()
        waiters = self._waiting.setdefault(container, [])
        waiters.append(waiter)
        if len(waiters) == 1:
            _ = spawn(self._find(container), "asking about a container")
        try:
            return await within(self.clock, PATIENCE, waiter)
        except TimeoutError:
            self._complain(_ALL, container, f"nothing was said of it within {PATIENCE:g} s")
            return ()
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    async def _find(self, container: Container) -> None:
        words: _Words = ()
        sources = self.sources
        try:
            for source in sources:
                if source.speaks_of(container):
                    told = await self._ask(source, container)
                    words = words if told is None else (*words, told)
            if not words:
                self._complain(_ALL, container, "nobody who may speak of it knows it as running")
        finally:
            if self.sources is sources:
                self._remember(container, words)
            for waiter in tuple(self._waiting.pop(container)):
                if not waiter.called:
                    waiter.callback(words)

    def _remember(self, container: Container, words: _Words) -> None:
        lasts = REMEMBERED_FOR if words else FORGOTTEN_FOR
        self._known[container] = self.clock.seconds() + lasts, words
        self._known.move_to_end(container)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    async def _ask(self, source: ContainerSource, container: Container) -> Told | None:
        """Again, where it knows nothing yet; others have their turn meanwhile."""
        for attempt in range(source.attempts):
            if attempt:
                await sleep(self.clock, source.pause)
            await self._turns.acquire()
            try:
                told = await source.tell(container)
            except PkiError as error:
                self._complain(source.where, container, str(error))
                return None
            finally:
                self._turns.release()
            if told is not None:
                for where in (source.where, _ALL):
                    self._complaints.pop((where, container.id), None)
                return told
        return None

    def _complain(self, where: str, container: Container, why: str) -> None:
        """Tell the log, unless it was the last that it was told of this."""
        key = where, container.id
        if self._complaints.get(key) == why:
            return
        self._complaints[key] = why
        self._complaints.move_to_end(key)
        if len(self._complaints) > _MOST:
            self._complaints.popitem(last=False)
        _log.warn(
            "Of container {container} nothing is attested but what the kernel says: {why}",
            event="container-not-attested",
            container=container.id,
            pod=container.pod_uid or "",
            why=why,
        )


def _container(handle: ProcessHandle) -> Container | None:
    """None also where /proc does not show it, as of :func:`~twisted_mesh.attest.process.hints`."""
    try:
        return container_of(handle.read("cgroup"))
    except Unreadable:
        return None
