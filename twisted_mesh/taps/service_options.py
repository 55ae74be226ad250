"""The options of every service, what is wrong with them in one sentence, and twistd's options beside them."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.python import usage

from pki.codes import Code
from pki.errors import PkiError, discreet, printable
from pki.validity import parse_duration
from twisted_mesh import observe
from twisted_mesh.cli.stdout import OutputLost, not_written, put
from twisted_mesh.runtime.open_files import hold_the_standard_ones, too_few
from twisted_mesh.state.directory import read_trusted
from twisted_mesh.state.environment import default_state_dir, refuse_tilde, refuse_tildes
from twisted_mesh.taps.log_level import LevelOption

if TYPE_CHECKING:
    from twisted_mesh.workers.seat import Seat

#: The reactor's, the store's, the doors', and some callers'.
LEAST_OPEN_FILES = 32
_LOG_FORMATS = ("text", "json")
_LARGEST_TEXT = 1024 * 1024
_DEFAULT_PIDFILE = "twistd.pid"


class StartError(PkiError):
    """The service cannot start; its text is the one sentence that the user sees."""

    code = Code.START


class ServiceOptions(usage.Options):
    """Options of every service, and errors in one sentence."""

    program: str
    words: tuple[str, ...] = ()
    """The options as they were written."""
    came_from: str | None = None
    """The directory that relative paths are meant from; None where it is gone."""
    seat: "Seat | None" = None
    """Of a worker; None where this is the whole service."""
    files: ClassVar[tuple[str, ...]] = ()
    """Options that name a file of rules, which is read again at SIGHUP."""
    texts: Mapping[str, bytes] | None = None
    """By option, what these hold, where a parent has read them for all its workers; None where they are read here."""
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
        # A umask that takes rights from the owner would shut a service out of its own record.
        os.umask(os.umask(0o077) & 0o077)
        if lack := too_few(LEAST_OPEN_FILES):
            raise SystemExit(f"{self.program}: {lack}")
        self.words = tuple(sys.argv[1:] if options is None else options)
        with suppress(FileNotFoundError):
            self.came_from = os.getcwd()
        try:
            refuse_tildes(sys.argv[1:] if options is None else options)
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(
                f"{self.program}: {printable(str(error))}; see {self.typed} --help"
            ) from None
        except PkiError as error:
            raise SystemExit(f"{self.program}: {error}") from None

    def sit_at(self, seat: "Seat") -> None:
        """Be the options of that worker: said before they are parsed."""
        self.seat, self.texts = seat, seat.assignment.texts

    def take_texts(self, texts: Mapping[str, bytes] | None) -> Mapping[str, bytes] | None:
        """Have the files of rules hold that from now on; what they held before."""
        before, self.texts = self.texts, texts
        return before

    def read_texts(self) -> Mapping[str, bytes]:
        """What the files of rules hold now. Raises :class:`PkiError`."""
        return {name: self.read_file_of(name) for name in self.files if self[name]}

    def read_file_of(self, option: str) -> bytes:
        """What the file of ``option`` holds now. Raises :class:`PkiError`."""
        return read_trusted(Path(self[option]), f"--{option}", _LARGEST_TEXT)

    def text_of(self, option: str) -> bytes:
        """What the file of ``option`` holds: for a worker, as its parent last read it. Raises :class:`PkiError`."""
        if self.texts is not None:
            return self.texts[option]
        return self.read_file_of(option)

    opt_h = usage.Options.opt_help

    @property
    def typed(self) -> str:
        """What the user typed to get here."""
        return getattr(getattr(self, "parent", None), "typed", f"twistd {self.program}")

    def opt_version(self) -> None:
        """print the version of twisted-mesh and exit"""
        from importlib.metadata import version

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
        whole = self._from_here(state)
        self["state-dir"] = whole if self._goes_elsewhere else state
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
