"""Observers of the log: lines for people, JSON for programs."""

import atexit
import json
import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from io import StringIO
from math import modf
from time import time
from typing import Any, Protocol

from attrs import define, frozen
from prometheus_client import Counter
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.reflect import safe_str
from zope.interface import implementer

from pki.errors import printable
from twisted_mesh.runtime.event_text import event_text, form_of, subsystem_of
from twisted_mesh.runtime.log import NAMESPACE
from twisted_mesh.runtime.log_file import LogFile
from twisted_mesh.runtime.log_writer import Descriptor, LogWriter, Lost, Output

_PRIVATE = re.compile(r"log_.*|event|format|isError|failure|time|system|message")

LINES_LOST = Counter(
    "mesh_log_lines_lost",
    "Lines of the log that could not be written, or had no room to wait until they were.",
)


#: What ``--log-level`` may say, and from which level on our own events and Twisted's are told then.
LEVELS = {
    "debug": (LogLevel.debug, LogLevel.info),
    "info": (LogLevel.info, LogLevel.warn),
    "warn": (LogLevel.warn, LogLevel.warn),
    "error": (LogLevel.error, LogLevel.error),
}
_least = [LEVELS["info"]]
#: The number of this worker, where it is one: its lines go into its parent's log.
_worker: list[int] = []


def set_level(name: str) -> None:
    """Log from now on what is at least that important: a key of :data:`LEVELS`."""
    _least[:] = [LEVELS[name]]
    _style.cache_clear()


def set_worker(number: int) -> None:
    """Say on each line from now on which worker tells it."""
    _worker[:] = [number]
    _style.cache_clear()


def pass_on(lines: str) -> None:
    """Write lines that a worker has made, each with its end, as they are; as events, where the log is not ours."""
    if writer := _writer():
        writer.write(lines)
        return
    for line in lines.splitlines():
        globalLogPublisher(_event(LogLevel.info, "{line}", event="worker-said", line=line))


@frozen
class _Style:
    """How a level of a namespace is told."""

    subsystem: str | None
    """None for Twisted's own."""
    prefix: str
    """What the lines of people begin with."""


@lru_cache(maxsize=512)
def _style(level: Any, namespace: str) -> _Style | None:
    """None where it is told to nobody: by default our own debugging, and what Twisted has to say that is no warning."""
    subsystem = subsystem_of(namespace)
    ours, twisteds = _least[0]
    if level < (ours if subsystem else twisteds):
        return None
    prefix = f"[{(subsystem or 'twisted').upper()}{''.join(f' {one}' for one in _worker)}] "
    if level >= LogLevel.error:
        prefix += "ERROR: "
    elif level >= LogLevel.warn:
        prefix += "WARNING: "
    return _Style(subsystem, prefix)


def _style_of(event: LogEvent) -> _Style | None:
    return _style(event.get("log_level", LogLevel.info), event.get("log_namespace") or "")


class Out(Protocol):
    """Of a file, what an observer needs."""

    def write(self, text: str, /) -> object:
        """Lines, each with its end."""

    def flush(self) -> None:
        """Have them seen."""


@implementer(ILogObserver)
class TextObserver:
    """``2026-11-23T10:00:00Z [SERVER] Certificate issued:`` with indented facts below."""

    def __init__(self, out: Out, *, timestamps: bool = True) -> None:
        self._out = out
        self._timestamps = timestamps

    def __call__(self, event: LogEvent) -> None:
        if line := self.line(event):
            _write(self._out, line)

    def line(self, event: LogEvent) -> str:
        """What is written of an event: nothing of chatter."""
        style = _style_of(event)
        if style is None:
            return ""
        prefix = style.prefix
        if self._timestamps:
            prefix = f"{_second(int(event.get('log_time', 0.0)))} {prefix}"
        text = event.get("log_format")
        if style.subsystem and isinstance(text, str):
            told = form_of(text, prefix).filled(event)
        else:
            told = "\n".join(prefix + line for line in event_text(event).split("\n"))
        if "log_failure" in event:
            told += "\n" + _traceback(event)
        return told + "\n"


#: What each line of JSON begins with.
_ABOUT_THE_LINE = frozenset(("time", "level", "system", "event", "message"))
#: Numbers of more digits take a while to write, or are refused.
_LARGE = 1 << 64
#: Facts that are serials.
_SERIALS = frozenset(("serial", "serials"))


@implementer(ILogObserver)
class JsonObserver:
    """One JSON object a line: time, level, system, event, message, and every fact under its name."""

    def __init__(self, out: Out) -> None:
        self._out = out

    def __call__(self, event: LogEvent) -> None:
        if line := self.line(event):
            _write(self._out, line)

    def line(self, event: LogEvent) -> str:
        """What is written of an event: nothing of chatter."""
        style = _style_of(event)
        if style is None:
            return ""
        line: dict[str, Any] = {
            "time": _moment(event.get("log_time", 0.0)),
            "level": event.get("log_level", LogLevel.info).name,
            "system": style.subsystem or "twisted",
            "event": event.get("event", ""),
            "message": event_text(event).split("\n", 1)[0],
        }
        for number in _worker:
            line["worker"] = number
        if style.subsystem:
            for name, value in event.items():
                if _is_fact(name):
                    line[name] = _serials(value) if name in _SERIALS else _as_json(value)
        if "log_failure" in event:
            line["traceback"] = _traceback(event)
        return json.dumps(line) + "\n"


@lru_cache(maxsize=512)
def _is_fact(name: str) -> bool:
    """Whether a field is told under its own name: not what the line is about, nor what Twisted puts there."""
    return name not in _ABOUT_THE_LINE and not _PRIVATE.fullmatch(name)


def _serials(value: object) -> object:
    """As all JSON of ours has serials: hex in lower case, without the colons that people like."""
    if isinstance(value, str):
        return value.replace(":", "").lower()
    return [*map(_serials, value)] if isinstance(value, list | tuple) else _as_json(value)


def _as_json(value: object) -> object:
    """``value`` itself where JSON can carry it, else in words."""
    if _is_plain(value) or (isinstance(value, list | tuple) and all(map(_is_plain, value))):
        return value
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return printable(safe_str(value), 4000)
    return value


def _is_plain(value: Any) -> bool:
    """Whether JSON carries it for certain."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii())
    return value is None or kind is bool or (kind is int and -_LARGE < value < _LARGE)


def _traceback(event: LogEvent) -> str:
    text: str = event["log_failure"].getTraceback()
    return "\n".join("  " + printable(line, 1000) for line in text.splitlines())


def _moment(seconds: float) -> str:
    """A POSIX time as ``2026-11-23T10:00:00.000000Z``, rounded as datetime rounds it."""
    fraction, whole = modf(seconds)
    microseconds = round(fraction * 1_000_000)
    if not 0 <= microseconds < 1_000_000:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return f"{_second(int(whole))[:-1]}.{microseconds:06}Z"


@lru_cache(maxsize=16)
def _second(moment: int) -> str:
    """A POSIX time as ``2026-11-23T10:00:00Z``."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _write(out: Out, text: str) -> None:
    try:
        try:
            out.write(text)
        except UnicodeEncodeError:  # a terminal of another encoding, and a name from abroad
            out.write(text.encode("ascii", "backslashreplace").decode())
        out.flush()
    except (OSError, ValueError):
        pass  # nobody reads any more; a service does not stop for that


@define
class _Choice:
    """What :func:`chosen` shall make, and what it made."""

    program: str
    log_format: str
    path: str | None
    writer: LogWriter | None = None


_choice: list[_Choice] = []


def choose(program: str, log_format: str, path: str | None = None) -> None:
    """What :func:`chosen` shall make: ``text`` or ``json``, into a file or on standard output."""
    _choice[:] = [_Choice(program, log_format, path)]


def chosen() -> ILogObserver:
    """The observer that the options asked for. twistd takes a logger by its dotted name only: this one.

    It writes once :func:`start_writing` is said, or at the end. Raises :class:`SystemExit` with a sentence where the
    file cannot be opened.
    """
    (choice,) = _choice
    output: Output
    encoding = "utf-8"
    if choice.path is not None:
        try:
            output = LogFile(choice.path)
        except OSError as error:
            raise SystemExit(
                f"{choice.program}: the log {printable(choice.path, 300)} cannot be opened ({error.strerror}): make "
                "its directory and let us write there, or give another with --logfile"
            ) from None
    else:
        try:
            output = Descriptor(sys.stdout.fileno())
            encoding = sys.stdout.encoding
        except (AttributeError, OSError, ValueError):  # closed by the shell, or not a file at all
            return _observer(choice.log_format, sys.stdout or StringIO())
    writer = LogWriter(output, lambda lost: observer.line(_lost(lost)), LINES_LOST.inc, encoding)
    observer = _observer(choice.log_format, writer)
    choice.writer = writer
    atexit.register(writer.finish)
    return observer


def _observer(log_format: str, out: Out) -> "TextObserver | JsonObserver":
    return JsonObserver(out) if log_format == "json" else TextObserver(out)


def start_writing() -> None:
    """From now on what is logged is written, off the reactor's thread: no fork may follow."""
    if writer := _writer():
        writer.start()


def finish_writing() -> None:
    """Before an end that no interpreter hears of: write what is logged, unless that takes too long."""
    if writer := _writer():
        writer.finish()


def reopen() -> None:
    """Go on in whatever has the log file's name now; a line in it says so."""
    if (writer := _writer()) is not None:
        log_format = _choice[0].log_format
        line = _observer(log_format, writer).line
        writer.reopen(lambda error: line(_reopened(error)))


def _writer() -> LogWriter | None:
    return _choice[0].writer if _choice else None


def _event(level: Any, text: str, **facts: object) -> LogEvent:
    return {
        "log_level": level,
        "log_namespace": f"{NAMESPACE}.log",
        "log_format": text,
        "log_time": time(),
        **facts,
    }


def _lost(lost: Lost) -> LogEvent:
    return _event(
        LogLevel.warn,
        "{lines} lines are missing here, from {since} on: {reason}",
        event="log-lines-lost",
        lines=lost.lines,
        since=_second(int(lost.since)),
        reason=lost.reason,
    )


def _reopened(error: OSError | None) -> LogEvent:
    if error is None:
        return _event(LogLevel.info, "Log reopened", event="log-reopened")
    return _event(
        LogLevel.error,
        "The log cannot be reopened ({reason}): it goes on in the file that is open",
        event="log-not-reopened",
        reason=error.strerror,
    )
