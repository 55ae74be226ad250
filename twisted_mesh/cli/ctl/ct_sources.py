"""Which logs ``mesh-ctl ct`` is about, and where each is read."""

from collections.abc import Sequence
from pathlib import Path

from pki.ct.log_list import Log, LogList, LogState
from pki.validity import parse_duration
from twisted_mesh.cli.program import Unusable
from twisted_mesh.ct.log_file import LogFile, logs_key
from twisted_mesh.ct.reader import LogReader
from twisted_mesh.interfaces import IReactor
from twisted_mesh.monitor.source import Directory, Source
from twisted_mesh.state.directory import StateError


def logs_of(path: Path, key: str | None) -> LogList:
    """The list in a file, signed by ``key`` if there is one. Raises :class:`pki.errors.PkiError`."""
    file = LogFile(path, logs_key(key, path) if key else None)
    file.load()
    return file.logs


def readable(logs: LogList) -> Sequence[Log]:
    """Those that can be followed: whatever their state, as long as they are not rejected. Raises :class:`Unusable`."""
    found = [log for log in logs.logs if log.monitoring_url and log.state is not LogState.REJECTED]
    if not found:
        raise Unusable("no log of the list can be read: each needs a monitoring_url")
    return found


def source_of(log: Log, copy: str | None, timeout: float, reactor: IReactor) -> Source:
    """Where it is read."""
    if copy is not None:
        return Directory(log, Path(copy))
    return LogReader(log, reactor, timeout)


def refuse_many(logs: Sequence[Log], copy: str | None) -> None:
    """Raises :class:`Unusable` where it cannot be said of which log a copy is."""
    if copy is not None and len(logs) != 1:
        raise Unusable(
            f"--copy is of one log, and the list has {len(logs)}: give a list with that one"
        )
    if copy is not None and not Path(copy).is_dir():
        raise StateError(f"--copy {copy} is no directory")


def seconds(text: str, option: str) -> float:
    """A duration. Raises :class:`pki.errors.PkiError`."""
    found = parse_duration(text).total_seconds()
    if found <= 0:
        raise Unusable(f"{option} is at least 1s")
    return found
