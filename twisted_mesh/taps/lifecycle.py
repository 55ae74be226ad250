"""What mesh-ca and mesh-server share under twistd: one-sentence failures, signals, draining."""

import atexit
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, execute, succeed
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from pki.errors import PkiError
from twisted_mesh import monitoring, observe
from twisted_mesh.http.status_site import Question
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime import garbage, meters
from twisted_mesh.runtime.clock import steady
from twisted_mesh.runtime.descriptors import Descriptors
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.log_writer import AT_THE_END, can_write
from twisted_mesh.runtime.service_manager import ServiceManager
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.taps.activation import ActivatedPort
from twisted_mesh.taps.early_port import EarlyPort
from twisted_mesh.taps.inherited_port import InheritedEndpoint
from twisted_mesh.taps.listening import early_endpoint, result_of
from twisted_mesh.taps.pid_file import PidFile
from twisted_mesh.taps.reread import Reread, reread_all
from twisted_mesh.taps.service_options import ServiceOptions
from twisted_mesh.taps.signals import Signals, before_the_start
from twisted_mesh.taps.status_port import clear_way, status_site

#: Seconds after the start until what it has made is looked through once.
_SETTLED = 1.0


class MeshService(MultiService, ABC):
    """A service that starts or says in one sentence why not, and stops gracefully, with status 0.

    It may be stopped at any moment of its start: :meth:`drain` and :meth:`close` then find whatever
    :meth:`start` has come to.
    """

    under_way = "requests"
    """What a stop lets finish, in words."""
    objects_between_looks = garbage.USUAL
    """How many are made before garbage is looked for."""

    def __init__(self, options: ServiceOptions, reactor: IReactor) -> None:
        super().__init__()
        self.options = options
        self.reactor = reactor
        self.log = logger(options.program.removeprefix("mesh-"))
        self.descriptors = Descriptors(reactor.seconds, self.log)
        self.ports: list[IListeningPort] = []
        self._early: list[tuple[EarlyPort | ActivatedPort, str]] = []
        self._manager = ServiceManager.of(os.environ)
        self._signs = Ticker(
            reactor, self._manager.watchdog, self._manager.alive, "the watchdog", self.log
        )
        self.pid_file = PidFile(options.pidfile) if options.pidfile else None
        self._rereading: Deferred[None] | None = None
        self._starting: Deferred[None] | None = None
        self.questions: Mapping[str, Question] = {}
        """What may be asked about it, by path."""
        self.understand()
        self.signals = Signals(reactor, self.log, self._reread)

    def understand(self) -> None:
        """What the options mean, before anything is touched. Raises :class:`PkiError`."""

    @abstractmethod
    async def start(self) -> None:
        """Everything that can keep the service from starting: state, locks, keys, ports. Raises :class:`PkiError`."""

    async def run(self) -> None:
        """What takes a while, once all has been taken that can be refused. Raises :class:`PkiError`."""

    async def drain(self, seconds: float) -> None:
        """Let what is under way finish, within so many seconds."""

    def privilegedStartService(self) -> None:
        """After twistd's fork, and before it sheds rights."""
        observe.start_writing()
        if self.pid_file is not None:
            try:
                self.pid_file.take(self.options.program)
            except PkiError as error:
                self._give_up(str(error))
        super().privilegedStartService()

    def startService(self) -> None:
        """Start now, or begin to; a start that is over and has failed ends the process here."""
        meters.begin()
        globalLogPublisher.addObserver(monitoring.count)
        globalLogPublisher.addObserver(self.descriptors)
        self.signals.install_first()
        self.reactor.callWhenRunning(self.signals.install)
        if self.options.seat is not None:
            self.options.seat.speak(self.reactor, self, self.log)
        starting = Deferred.fromCoroutine(self.start())
        if starting.called:
            self._refuse_failed(starting)
        # Else a key is not in memory: what still fails ends a reactor that runs by then.
        super().startService()
        self._starting = spawn(self._run(starting), "starting", self.log)

    def _refuse_failed(self, starting: "Deferred[None]") -> None:
        """End the process here, before the reactor runs, if a start that is over has failed."""
        failures: list[Failure] = []
        _ = starting.addErrback(failures.append)
        for failure in failures:
            if failure.check(PkiError):
                self._give_up(str(failure.value))
            failure.raiseException()

    def stopService(self) -> "Deferred[None]":
        """Stop gracefully; fires once all is given back."""
        self.signals.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._manager.stopping()
        self.log.info(
            "Stopping: nobody new is let in, and {under_way} may finish",
            event="stopping",
            under_way=self.under_way,
        )
        if self._starting is not None:
            self._starting.cancel()  # a start that is not done goes no further
        for port in self.ports:
            await _settled(port.stopListening())
        await self.drain(self.options["drain"])
        await _settled(super().stopService())
        await self.close()
        if self.options.seat is not None:
            self.options.seat.leave()
        self._signs.stop()
        self._remove_pid_file()
        self.log.info("Stopped", event="stopped")

    def cut_off(self, late: int, seconds: float) -> None:
        """Say that some of what was under way did not finish in time."""
        self.log.warn(
            "{late} {under_way} were cut off after {seconds} s",
            event="cut-off",
            late=late,
            under_way=self.under_way,
            seconds=seconds,
        )

    async def close(self) -> None:
        """Release what :meth:`start` took."""

    async def _run(self, starting: "Deferred[None]") -> None:
        try:
            await starting
            await self.run()
            self._manager.ready()
            if self.options.seat is not None:
                self.options.seat.listening()
            if self._manager.watchdog:
                self._signs.start()
            garbage.as_usual(self.objects_between_looks)
            # A moment later: whoever has waited for the start is served first.
            self.reactor.callLater(_SETTLED, garbage.settle)
        except CancelledError:
            raise  # it is being stopped
        except PkiError as error:
            self.fail(str(error))
        except Exception as error:
            self.log.failure("starting broke", event="start-broke")
            self.fail(
                f"a bug of its own stopped it from starting ({type(error).__name__}); its log has the details"
            )

    def listening(self, starting: "Deferred[IListeningPort]", what: str) -> IListeningPort:
        """The port of an endpoint's ``listen``. Raises :class:`StartError` in one sentence."""
        port: IListeningPort = result_of(starting, what)
        self.ports.append(port)
        if isinstance(port, EarlyPort | ActivatedPort):
            self._early.append((port, what))
        return port

    def serve_status(self, endpoint: IStreamServerEndpoint | None) -> None:
        """Answer :attr:`questions` at ``--status``, where that is wanted. Raises :class:`StartError`."""
        if endpoint is not None:
            address = self.options["status"]
            clear_way(address)
            health = status_site(self.questions, self.options["dns"], self.reactor, self.log)
            self.listening(endpoint.listen(health), f"the status address {address}")

    def open(self, *, later: object = None) -> None:
        """Listen on the ports that have been bound only, ``later`` not yet. Raises :class:`StartError`."""
        early = [(port, what) for port, what in self._early if port is not later]
        self._early = [(port, what) for port, what in self._early if port is later]
        for port, what in early:
            result_of(execute(port.startListening), what)

    def fail(self, sentence: str) -> None:
        """End the running service with one sentence and a status that is not 0."""
        self._say(sentence)
        # twistd has no way to end a running reactor with a status.
        atexit.register(_exit_with_failure)
        if not self.signals.is_stopping:
            self.reactor.callWhenRunning(self.reactor.stop)

    def _give_up(self, sentence: str) -> NoReturn:
        """The same before the reactor runs. twistd would print a traceback for an exception."""
        self._say(sentence)
        self._remove_pid_file()
        if (pipe := self.options.status_pipe) is not None:
            os.write(pipe, b"1 " + sentence.encode()[:98])
        raise SystemExit(1)

    def _remove_pid_file(self) -> None:
        if self.pid_file is not None:
            self.pid_file.remove()

    def rereads(self) -> "list[Reread]":
        """What is read again at SIGHUP; what :meth:`start` has not come to yet is not among it."""
        level = self.options["log-level"]
        if level.file is None:
            return []

        async def again() -> str:
            before, new = self.options["log-level"].level, level.again()
            observe.set_level(new)
            self.options["log-level"] = evolve(level, level=new)
            return f"{new}, and it was {before}" if new != before else ""

        return [Reread(f"--log-level @{level.file}", again)]

    def _reread(self) -> None:
        """Once this is done that goes on, where a signal comes while another is heeded."""
        before = self._rereading or succeed(None)

        async def in_turn() -> None:
            await before
            self._manager.reloading()
            await reread_all(self.rereads(), self.log)
            self._manager.ready()

        self._rereading = spawn(in_turn(), "rereading", self.log)

    def take_up(self, texts: Mapping[str, bytes], level: str) -> None:
        """As at SIGHUP, which the parent of this worker has heeded: its files hold that now."""
        _ = self.options.take_texts(texts)
        observe.set_level(level)
        if self.rereads():  # else the level was all, of which the parent tells
            self._reread()

    def stop_now(self, *, at_once: bool) -> None:
        """As at SIGTERM, or at a second one: the parent of this worker has had it."""
        self.signals.end(at_once=at_once)

    def endpoint_at(self, text: str, default_interface: str = "") -> IStreamServerEndpoint:
        """What :meth:`open` is to listen on: an address, or a worker's socket there. Raises :class:`StartError`."""
        if self.options.seat is not None:
            return InheritedEndpoint(self.reactor, self.options.seat.take_socket())
        return early_endpoint(self.reactor, text, default_interface)

    def _say(self, sentence: str) -> None:
        """On the standard error that twistd took over for its log; and in the log, if that is elsewhere."""
        if not self.options.logs_to_stdout:
            self.log.error("{sentence}", event="failed", sentence=sentence)
        observe.finish_writing()  # it is the last that is read
        say_at_the_end(f"{self.options.program}: {sentence}\n")


def service_of(kind: type[MeshService], options: ServiceOptions) -> MeshService:
    """What a plugin's ``makeService`` returns; options that cannot be used end it in one sentence."""
    from twisted.internet import reactor

    before_the_start()
    try:
        return kind(options, steady(reactor))
    except PkiError as error:
        raise SystemExit(f"{options.program}: {error}") from None


async def _settled(maybe: object) -> None:
    if isinstance(maybe, Deferred):
        await maybe


def say_at_the_end(text: str) -> None:
    """On the real standard error, unless it is closed, or nobody reads it."""
    out = sys.__stderr__
    if out is None:
        return
    try:
        descriptor = out.fileno()
    except (OSError, ValueError):  # not a file at all
        out.write(text)
        return
    with suppress(OSError):
        if can_write(descriptor, AT_THE_END):
            os.write(descriptor, text.encode(out.encoding, "backslashreplace"))


def _exit_with_failure() -> None:
    observe.finish_writing()
    os._exit(1)
