"""What an auditor of logs remembers over a restart: the heads that it has seen, and what it has not looked into yet."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.ct.log_list import LogList
from pki.ct.tree_head import open_note
from pki.errors import PkiError
from twisted_mesh.ct.promise import Kept, Promise
from twisted_mesh.ct.reader import SignedHead
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer, Ticker, spawn
from twisted_mesh.state.directory import StateError, read_file, write_whole
from twisted_mesh.state.memory import Memory
from twisted_mesh.state.private import make_private_in_state, refuse_open

#: Seconds between two writes.
_WRITING = 15.0
#: Bytes of a file: as many promises as are waited with, and heads.
_LARGEST = 64 * 1024 * 1024


@frozen
class Remembered:
    """What is not to be forgotten."""

    heads: Mapping[bytes, SignedHead] = field(factory=dict)
    """By the logs' IDs."""
    promises: Sequence[Promise] = ()


class _File(msgspec.Struct):
    heads: dict[str, str] = {}
    promises: list[Kept] = []


@define(eq=False, repr=False)
class AuditMemory:
    """One file, written off the reactor, and soon after something has changed."""

    path: Path | None
    """None keeps nothing."""
    log: Logger = field(factory=lambda: logger("ct"))
    is_due: bool = field(default=False, init=False)
    """Whether something has changed since it was written."""
    memory: Memory = field(init=False)
    _ticker: Ticker | None = field(default=None, init=False)
    _is_writing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "ct-audit",
            self.path,
            "What logs are still to be asked about is kept in memory only",
            event="ct-audit-not-kept",
            again=self._try_again,
            log=self.log,
        )

    def recall(self, logs: LogList) -> Remembered:
        """What was kept of logs that count. What cannot be read is told, and begun anew."""
        if self.path is None or not self.path.exists():
            return Remembered()
        try:
            refuse_open(self.path.parent)
            kept = msgspec.json.decode(read_file(self.path, "the audit", _LARGEST), type=_File)
        except (OSError, PkiError, msgspec.MsgspecError, RecursionError) as error:
            self.log.warn(
                "{path} cannot be used: what logs were still to be asked about is lost: {error}",
                event="ct-audit-lost",
                path=str(self.path),
                error=str(error),
            )
            return Remembered()
        return Remembered(dict(_heads(kept.heads, logs)), list(_promises(kept.promises)))

    def start(
        self, clock: IReactorTime, snapshot: Callable[[], Remembered], on_thread: Defer
    ) -> None:
        """Write what ``snapshot`` gives, whenever it is due."""
        if self.path is not None:
            self._ticker = Ticker(
                clock,
                _WRITING,
                lambda: self._tick(snapshot, on_thread),
                "keeping what logs are asked about",
                self.log,
            )
            self._ticker.start(now=False)

    def stop(self, remembered: Remembered) -> None:
        """Write it for the last time."""
        if self._ticker is not None:
            self._ticker.stop()
        if self.path is not None and (self.is_due or self.memory.problem is not None):
            with self.memory.writing():
                _write(self.path, _encoded(remembered))
                self.is_due = False

    def _try_again(self) -> None:
        self.is_due = True

    def _tick(self, snapshot: Callable[[], Remembered], on_thread: Defer) -> None:
        if self.is_due and not self._is_writing and self.path is not None:
            self.is_due, self._is_writing = False, True
            _ = spawn(self._keep(self.path, snapshot(), on_thread), "keeping an audit", self.log)

    async def _keep(self, path: Path, remembered: Remembered, on_thread: Defer) -> None:
        try:
            with self.memory.writing():
                try:
                    await on_thread(_write, path, _encoded(remembered))
                except (OSError, StateError):
                    self.is_due = True
                    raise
        finally:
            self._is_writing = False


def audit_path(state_dir: Path, who: str) -> Path:
    """Where the auditor of one endpoint keeps what it has to."""
    return state_dir / "ct-audit" / f"{sha256(who.encode()).hexdigest()[:16]}.json"


def _encoded(remembered: Remembered) -> bytes:
    heads = {log_id.hex(): head.note for log_id, head in remembered.heads.items()}
    return msgspec.json.encode(_File(heads, [one.kept() for one in remembered.promises]))


def _write(path: Path, data: bytes) -> None:
    make_private_in_state(path.parent)
    write_whole(path, data, 0o600)


def _heads(kept: Mapping[str, str], logs: LogList) -> "Sequence[tuple[bytes, SignedHead]]":
    found = []
    for text, note in kept.items():
        try:
            log = logs.log_of(bytes.fromhex(text))
            if log is not None:
                found.append((log.log_id, SignedHead(open_note(note, log), note)))
        except (ValueError, PkiError):
            continue  # of a log that is another by now
    return found


def _promises(kept: Sequence[Kept]) -> Sequence[Promise]:
    found = []
    for one in kept:
        try:
            found.append(Promise.recalled(one))
        except PkiError:
            continue
    return found
