"""What the policy was asked last, and what it said: for whoever wants to know what another policy would have said.

A few files of bounded size; the oldest is dropped. The audit log has each decision by which something was issued, and
is the one that is signed: this is not evidence, and what is lost of it harms nobody.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
from attrs import define, evolve, field

from pki.rules.facts import Facts
from twisted_mesh.api.policy_messages import DecisionRow
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.memory import Memory

#: Bytes of one file, and how many there are: some 20,000 decisions in all.
FILE_SIZE = 8 * 1024 * 1024
FILES = 4
#: A decision that is longer is not kept.
LONGEST = 256 * 1024
#: Kinds of selectors whose value may be a secret: of a container's environment.
_PRIVATE = ("docker:env:",)
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DecisionRow).decode


class Decided(msgspec.Struct, frozen=True):
    """A :class:`DecisionRow` as it is made: with what was asked, which is only written down."""

    at: str
    outcome: str
    rule: str
    reason: str
    policy: str
    input: Facts


@define(eq=False, repr=False)
class DecisionJournal:
    """Files in a directory of their own, each opened for each line: a crash leaves no more than half a line."""

    directory: Path
    size: int = FILE_SIZE
    files: int = FILES
    newest: Path = field(init=False)
    memory: Memory = field(init=False)
    """Whether it can be written."""
    _begun: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.newest = self.directory / "decisions.jsonl"
        self.memory = Memory(
            "policy-journal",
            self.newest,
            "Decisions of the policy are not kept for a dry run; the audit log has them all the same",
            event="policy-journal-not-written",
            again=self._try_again,
        )

    def note(self, decided: Decided) -> None:
        """Keep one decision, whole or not at all. Raises nothing: whoever is let in does not pay for a full disk."""
        line = _encode(_without_secrets(decided)) + b"\n"
        if len(line) > LONGEST:
            return
        with self.memory.writing():
            self._append(line)

    def reader(self, count: int) -> Callable[[], list[DecisionRow]]:
        """What reads the last ``count``, the oldest first, on any thread. Half a line, and what is none, is left out.

        The files are opened now: none is read twice, whatever becomes of their names.
        """
        opened = []
        for path in self._paths():
            with suppress(OSError):
                opened.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))

        def read() -> list[DecisionRow]:
            found: list[DecisionRow] = []
            for descriptor in opened:
                with os.fdopen(descriptor, "rb") as file:
                    if len(found) < count:
                        found += _last_of(file.read(self.size + LONGEST), count - len(found))
            return found[::-1]

        return read

    def _paths(self) -> list[Path]:
        """The newest first."""
        older = (self.directory / f"decisions.{number}.jsonl" for number in range(1, self.files))
        return [self.newest, *older]

    def _try_again(self) -> None:
        with self.memory.writing():
            self._append(b"")

    def _append(self, line: bytes) -> None:
        """Raises OSError, :class:`StateError`."""
        with os.fdopen(self._opened(), "ab", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise StateError(f"{self.newest} is no file of ours: move it out of the way")
            if found.st_size and not self._begun:
                line = b"\n" + line  # an earlier life may have ended within a line
            written = file.write(line) or 0
            if written != len(line):  # half a line would spoil the next one too
                file.truncate(found.st_size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.newest))
            self._begun = True
        if found.st_size + written >= self.size:
            self._rotate()

    def _opened(self) -> int:
        try:
            return os.open(self.newest, _APPENDING, 0o600)
        except FileNotFoundError:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            return os.open(self.newest, _APPENDING, 0o600)

    def _rotate(self) -> None:
        """Each name is taken in one step: a crash between two of them loses nothing but the oldest file."""
        paths = self._paths()
        for newer, older in reversed(list(pairwise(paths))):
            with suppress(FileNotFoundError):
                newer.replace(older)


def _last_of(data: bytes, count: int) -> list[DecisionRow]:
    """The newest first."""
    found: list[DecisionRow] = []
    for line in reversed(data.split(b"\n")):
        if len(found) == count:
            break
        with suppress(msgspec.DecodeError, msgspec.ValidationError, RecursionError):
            found.append(_decode(line))
    return found


def _without_secrets(decided: Decided) -> Decided:
    """The same without values that may be a secret, but for those that an entry names anyway."""
    asked = decided.input
    if not any(text.startswith(_PRIVATE) for text in asked.selectors):
        return decided
    shown = tuple(
        f"{text.partition('=')[0]}=(not shown)"
        if text.startswith(_PRIVATE) and text not in asked.entry.selectors
        else text
        for text in asked.selectors
    )
    return msgspec.structs.replace(decided, input=evolve(asked, selectors=shown))
