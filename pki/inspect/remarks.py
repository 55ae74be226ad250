"""What is odd about a thing that is looked at, and what of it cannot be read: found part by part."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from attrs import define, field

from pki.errors import HOSTILE_INPUT, Malformed
from pki.inspect.ber import Node, time_of
from pki.inspect.extensions import Extension, damaged_extension, read_extensions
from pki.inspect.name_text import name_text

_T = TypeVar("_T")

#: Stands where a part cannot be read.
UNREADABLE = "(cannot be decoded)"
#: More are not kept: a file of 10 MB could cause millions.
_MOST = 1000
_MORE = f"there are more than {_MOST} remarks: the others are not told"


@define
class Remarks:
    """Collects them in their order, each once. Whoever reads goes on with the next part."""

    _found: dict[str, None] = field(factory=dict)
    unreadable: list[str] = field(factory=list)
    """Those that are about what cannot be read: with them something is hidden."""

    @property
    def all(self) -> tuple[str, ...]:
        """Everything that was found."""
        return tuple(self._found)

    def note(self, text: str) -> None:
        """Something is odd, and was read nevertheless."""
        if len(self._found) < _MOST:
            self._found[text] = None
        else:
            self._found[_MORE] = None

    def lose(self, what: str, why: object) -> None:
        """Something cannot be read."""
        self.hide(f"{what} cannot be decoded: {why}")

    def hide(self, text: str) -> None:
        """Something is there that is not shown."""
        self.note(text)
        if len(self.unreadable) < _MOST:
            self.unreadable.append(text)

    def follows(self, what: str, at: int, end: int) -> None:
        """Something comes after ``what``, and is none of it."""
        size = f"{end - at} byte{'s' if end - at > 1 else ''}"
        self.hide(
            f"what follows {what} at byte {at} does not belong there, and is not shown ({size})"
        )

    def attempt(self, what: str, read: Callable[[], _T]) -> _T | None:
        """What ``read`` finds; None, and a remark, where it cannot be read."""
        try:
            return read()
        except Malformed as error:
            self.lose(f"its {what}", error)
        except HOSTILE_INPUT:
            self.lose(f"its {what}", "it is damaged")
        return None

    def name(self, what: str, node: Node) -> str:
        """A distinguished name."""
        text = self.attempt(what, lambda: name_text(node, self.note, what))
        return UNREADABLE if text is None else text

    def time(self, what: str, node: Node) -> datetime | None:
        """A time."""
        found = self.attempt(what, lambda: time_of(node))
        if found is None:
            return None
        if not found[1]:
            self.note(
                f"its {what} at byte {node.at} is not written as RFC 5280 section 4.1.2.5 has it"
            )
        return found[0]

    def extensions(self, content: bytes, at: int, whose: str = "its") -> tuple[Extension, ...]:
        """What is inside a SEQUENCE of extensions."""
        found = read_extensions(content, at)
        self._about(found, whose)
        return found

    def no_extensions(self, content: bytes, at: int, why: object) -> tuple[Extension, ...]:
        """For those that are not even a SEQUENCE."""
        found = (damaged_extension("unknown", content, at, str(why)),)
        self._about(found, "its")
        return found

    def _about(self, extensions: Iterable[Extension], whose: str) -> None:
        names: set[str] = set()
        for extension in extensions:
            what = f"{whose} extension {extension.name} at byte {extension.at}"
            if extension.damaged:
                self.lose(what, extension.why)
            for remark in extension.remarks:
                self.note(f"{what}: {remark}")
            if extension.oid in names and extension.oid != "unknown":
                self.note(f"{whose} extension {extension.name} appears more than once")
            names.add(extension.oid)
