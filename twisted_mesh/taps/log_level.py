"""``--log-level``: how much is logged, in a word or in a file that has the word."""

import os
from pathlib import Path

from attrs import frozen

from pki.errors import Malformed, printable
from twisted_mesh import observe
from twisted_mesh.state.directory import StateError


@frozen
class LevelOption:
    """A level, or the file that says it."""

    file: Path | None
    level: str

    @classmethod
    def parse(cls, text: str) -> "LevelOption":
        """``info`` or ``@FILE``. Raises :class:`Malformed`, and :class:`StateError` for a file that cannot be read."""
        if not text.startswith("@"):
            return cls(None, _level(text, "--log-level"))
        file = Path(text[1:])
        return cls(file, _read(file))

    def again(self) -> str:
        """The level as the file has it now. Raises as :meth:`parse`."""
        return self.level if self.file is None else _read(self.file)


def _read(file: Path) -> str:
    what = f"--log-level @{file}"
    try:
        # A pipe without a writer would be waited for.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            return _level(lines.readline(200).strip(), what)
    except OSError as error:
        raise StateError(f"{what} cannot be read ({error.strerror})") from None


def _level(word: str, what: str) -> str:
    if word not in observe.LEVELS:
        raise Malformed(f"{what} says {printable(word, 80)!r}: write {', '.join(observe.LEVELS)}")
    return word
