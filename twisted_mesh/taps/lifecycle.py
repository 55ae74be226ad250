"""What mesh-ca and mesh-server share under twistd: options, one-sentence failures, signals, draining."""

import atexit
import gc
import os
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, execute, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import globalLogPublisher
from twisted.python import usage
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import PkiError, discreet, printable
from pki.validity import parse_duration
from twisted_mesh import monitoring, observe
from twisted_mesh.cli.program import OutputLost, not_written, put
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime import meters
from twisted_mesh.runtime.clock import steady
from twisted_mesh.runtime.descriptors import Descriptors
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.log_writer import AT_THE_END, can_write
from twisted_mesh.runtime.open_files import hold_the_standard_ones, too_few
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.state.environment import default_state_dir, refuse_tilde, refuse_tildes
from twisted_mesh.taps.bind_error import why_not_bound
from twisted_mesh.taps.early_port import EarlyPort, EarlyReactor
from twisted_mesh.taps.log_level import LevelOption
from twisted_mesh.taps.pid_file import PidFile
from twisted_mesh.taps.reread import Reread, reread_all
from twisted_mesh.taps.signals import Signals, before_the_start

T = TypeVar("T")
#: The reactor's, the store's, the doors', and some callers'.
LEAST_OPEN_FILES = 32
_LOG_FORMATS = ("text", "json")
_DEFAULT_PIDFILE = "twistd.pid"


class StartError(PkiError):
    """The service cannot start; its text is the one sentence that the user sees."""

    code = Code.START


class ServiceOptions(usage.Options):
    """Options of every service, and errors in one sentence."""

    program: str
    pidfile = ""
    """The file that is to have our PID; empty where there is none."""
    optParameters: ClassVar = [
        [
            "state-dir",
            None,
            None,
            "where state lives (default $MESH_STATE_DIR, else the user's state directory)",
        ],
        ["log-format", None, "text", "text for people, json for one object a line"],
        [
            "log-level",
            None,
            "info",
            "debug, info, warn or error; @FILE: what that file says, read again at SIGHUP",
        ],
        ["drain", None, "10s", "how long requests may go on after SIGTERM"],
    ]

    def parseOptions(self, options: Any = None) -> None:
        """As Twisted does it; what is wrong ends the process in one sentence, with a status of 1."""
        hold_the_standard_ones()
        if lack := too_few(LEAST_OPEN_FILES):
            raise SystemExit(f"{self.program}: {lack}")
        try:
            refuse_tildes(sys.argv[1:] if options is None else options)
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(
                f"{self.program}: {printable(str(error))}; see {self.typed} --help"
            ) from None
        except PkiError as error:
            raise SystemExit(f"{self.program}: {error}") from None

    opt_h = usage.Options.opt_help

    @property
    def typed(self) -> str:
        """What the user typed to get here."""
        return getattr(getattr(self, "parent", None), "typed", f"twistd {self.program}")

    def opt_version(self) -> None:
        """print the version of twisted-mesh and exit"""
        try:
            put(f"twisted-mesh {version('twisted-mesh')}\n")
        except OutputLost as lost:
            raise SystemExit(not_written(self.program, lost.error)) from None
        raise SystemExit(0)

    def parseArgs(self, *stray: str) -> None:
        """Raises :class:`usage.UsageError`: there are options only."""
        if stray:
            raise usage.UsageError(f"{discreet(stray[0])!r} is not an option")

    def postOptions(self) -> None:
        """Turn what all services have into values. Raises :class:`PkiError` and :class:`usage.UsageError`."""
        if self["log-format"] not in _LOG_FORMATS:
            raise usage.UsageError(f"--log-format is one of {', '.join(_LOG_FORMATS)}")
        self["log-level"] = LevelOption.parse(self["log-level"])
        self["drain"] = parse_duration(self["drain"]).total_seconds()
        refuse_tilde(self["state-dir"] or "", "--state-dir")
        state = Path(self["state-dir"]) if self["state-dir"] else default_state_dir()
        # What is relative is meant from here, and not from where twistd goes.
        self["state-dir"] = self._from_here(state) if self._goes_elsewhere else state
        self._settle_with_twistd()

    def _settle_with_twistd(self) -> None:
        """Log in our format, unless twistd's own options say how; no PID file nobody asked for."""
        twistd = getattr(self, "parent", None)
        if twistd is None:
            return
        foreground = twistd.get("nodaemon")
        observe.set_level(self["log-level"].level)
        if not twistd.get("logger") and not twistd.get("syslog"):
            logfile = twistd.get("logfile")
            if self.logs_to_stdout:
                observe.choose(self.program, self["log-format"])
            elif logfile != "-":
                logfile = self._from_here(logfile or f"{self.program}.log", "--logfile")
                observe.choose(self.program, self["log-format"], str(logfile))
            if logfile != "-" or foreground:
                twistd["logger"] = f"{observe.__name__}.{observe.chosen.__name__}"
        path = str(twistd.get("pidfile") or "")
        if path == _DEFAULT_PIDFILE:
            # With twistd's default, two services could not be started in one directory.
            path = "" if foreground else f"{self.program}.pid"
        # twistd refuses to start beside a file that was left behind, where its number is another process's by now.
        twistd["pidfile"] = ""
        self.pidfile = str(self._from_here(path, "--pidfile")) if path else ""

    @property
    def _goes_elsewhere(self) -> bool:
        """Whether twistd works in another directory than this one (``--rundir``)."""
        return (getattr(self, "parent", None) or {}).get("rundir") not in (None, "", ".")

    @staticmethod
    def _from_here(path: str | Path, option: str = "--state-dir") -> Path:
        """The whole of a path. Raises :class:`StartError` where this directory is gone, and :class:`PkiError`."""
        refuse_tilde(str(path), option)
        try:
            return Path(os.path.abspath(path))
        except FileNotFoundError:
            raise StartError(
                f"{option} {path} is meant from the directory that we were started in, and that has been removed: "
                "give a whole path, or start elsewhere"
            ) from None

    @property
    def logs_to_stdout(self) -> bool:
        """Whether the log goes to where sentences for the user would go too."""
        twistd = getattr(self, "parent", None) or {}
        return bool(twistd.get("nodaemon")) and twistd.get("logfile") in (None, "", "-")

    @property
    def status_pipe(self) -> int | None:
        """Where twistd's foreground process waits, for ever, to hear whether its daemon has started."""
        twistd = getattr(self, "parent", None) or {}
        pipe: int | None = twistd.get("statusPipe")
        return pipe


class MeshService(MultiService, ABC):
    """A service that starts or says in one sentence why not, and stops gracefully, with status 0.

    It may be stopped at any moment of its start: :meth:`drain` and :meth:`close` then find whatever
    :meth:`start` has come to.
    """

    def __init__(self, options: ServiceOptions, reactor: IReactor) -> None:
        super().__init__()
        self.options = options
        self.reactor = reactor
        self.log = logger(options.program.removeprefix("mesh-"))
        self.descriptors = Descriptors(reactor.seconds, self.log)
        self.ports: list[IListeningPort] = []
        self._early: list[tuple[EarlyPort, str]] = []
        self.pid_file = PidFile(options.pidfile) if options.pidfile else None
        self._rereading: Deferred[None] | None = None
        self._starting: Deferred[None] | None = None
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
        self.log.info("Stopping: no new connections, requests may finish", event="stopping")
        if self._starting is not None:
            self._starting.cancel()  # a start that is not done goes no further
        for port in self.ports:
            await _settled(port.stopListening())
        await self.drain(self.options["drain"])
        await _settled(super().stopService())
        await self.close()
        self._remove_pid_file()
        self.log.info("Stopped", event="stopped")

    def cut_off(self, late: int, seconds: float) -> None:
        """Say that some requests did not finish in time."""
        self.log.warn(
            "{late} requests were cut off after {seconds} s",
            event="cut-off",
            late=late,
            seconds=seconds,
        )

    async def close(self) -> None:
        """Release what :meth:`start` took."""

    async def _run(self, starting: "Deferred[None]") -> None:
        try:
            await starting
            await self.run()
            # What is there now stays: a collection need not look at it again and again.
            gc.collect()
            gc.freeze()
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
        if isinstance(port, EarlyPort):
            self._early.append((port, what))
        return port

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
            await reread_all(self.rereads(), self.log)

        self._rereading = spawn(in_turn(), "rereading", self.log)

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


def early_endpoint(
    reactor: object, text: str, default_interface: str = ""
) -> IStreamServerEndpoint:
    """The same as :func:`listening_endpoint`; it is bound only, until :meth:`MeshService.open` is said."""
    return listening_endpoint(EarlyReactor(reactor), text, default_interface)


def listening_endpoint(
    reactor: object, text: str, default_interface: str = ""
) -> IStreamServerEndpoint:
    """``9443``, ``:9443``, ``host:9443``, ``[::1]:9443`` or a Twisted endpoint string."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = default_interface
    plain_host = not host or host.startswith("[") or (":" not in host and "=" not in host)
    if (
        port.isascii()
        and port.isdigit()
        and plain_host
        and host not in ("tcp", "tcp6", "unix", "systemd")
    ):
        if not is_port(port):
            raise StartError(f"{discreet(text, 80)!r}: a port is at most 65535")
        host = host.strip("[]").replace(":", "\\:")
        kind = "tcp6" if "\\:" in host else "tcp"
        text = f"{kind}:{port}:interface={host}:backlog=1024"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
        return endpoint
    except Exception:  # each endpoint parser raises what it likes
        raise StartError(
            f"{discreet(text, 80)!r} is no address to listen on: write 9443, host:9443 or a Twisted endpoint string"
        ) from None


def is_port(text: str) -> bool:
    """Whether it is the number of a port; 0 has the system choose one."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def result_of(starting: "Deferred[T]", what: str) -> T:
    """The port of a ``listen`` that has already fired, as TCP's and UNIX's do. Raises :class:`StartError`."""
    outcome: list[T | Failure] = []
    _ = starting.addBoth(outcome.append)
    if not outcome:
        raise StartError(f"{what} cannot be listened on: its endpoint takes its time")
    (port,) = outcome
    if isinstance(port, Failure):
        error = port.value
        if isinstance(error, CannotListenError):
            raise StartError(f"{what} cannot be listened on {why_not_bound(error)}")
        raise StartError(f"{what} cannot be listened on ({printable(str(error), 200)})")
    return port


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
