"""``--store``: where a log's record and its files are, if not in its state directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

from attrs import frozen

from pki.errors import Malformed, discreet

_SQLITE = "sqlite:///"


@frozen
class LogPlace:
    """A directory for both, or a file for the record alone. ``LogPlace.parse(str(x)) == x``."""

    directory: Path | None = None
    record: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``DIRECTORY``, ``sqlite:///FILE`` or nothing for the log's own directory. Raises :class:`Malformed`."""
        if text in ("", "sqlite"):
            return cls()
        if text.startswith(_SQLITE) and text.removeprefix(_SQLITE).strip("/"):
            return cls(None, Path(text.removeprefix(_SQLITE)))
        if ":" in text.partition("/")[0]:
            raise Malformed(
                f"--store {discreet(text, 100)} is no place for a log: it is a directory, for its record and its tile "
                "files, or sqlite:///FILE, for the record alone"
            )
        return cls(Path(text))

    def at(self, whole: Callable[[Path], Path]) -> "LogPlace":
        """The same, as a whole path."""
        directory, record = self.directory, self.record
        return LogPlace(directory and whole(directory), record and whole(record))

    def __str__(self) -> str:
        return f"{_SQLITE}{self.record}" if self.record is not None else str(self.directory or "")
