"""An event in words: its constant text, which is taken apart once, with its values, none of which can add a line."""

import re
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from string import Formatter
from typing import Any

from attrs import define, field
from twisted.logger import LogEvent, formatEvent
from twisted.python.reflect import safe_str

from pki.errors import printable
from twisted_mesh.runtime.log import NAMESPACE

_SUBSYSTEM = re.compile(rf"{NAMESPACE}\.(\w+)")
#: Characters of a value that are shown.
_LONGEST = 4000


@define(eq=False)
class Form:
    """An event's constant text, taken apart once, with room for its values."""

    pieces: list[str]
    """Every other one stands for a field, and what is there is put in its place."""
    names: tuple[str, ...]
    specs: tuple[str, ...]
    _values: Callable[[LogEvent], tuple[Any, ...]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        names = self.names
        # With one name itemgetter gives no tuple.
        self._values = (
            itemgetter(*names) if len(names) > 1 else lambda e: tuple(e[n] for n in names)
        )

    @classmethod
    def of(cls, text: str, prefix: str = "") -> "Form":
        """``prefix`` stands before every line but those that are facts of the one above."""
        lines = text.split("\n")
        shown = [lines[0], *(line if line.startswith(" ") else prefix + line for line in lines[1:])]
        pieces, names, specs = [prefix], [], []
        for before, name, spec, _ in Formatter().parse("\n".join(shown)):
            pieces[-1] += before
            if name is not None:
                names.append(name)
                specs.append(spec or "")
                pieces += ["", ""]
        return cls(pieces, tuple(names), tuple(specs))

    def filled(self, event: LogEvent) -> str:
        """The text with the event's values, without control characters."""
        parts = self.pieces.copy()
        try:
            values = self._values(event)
            if any(self.specs):
                raise TypeError
            # Most are what printable() would leave as they are.
            told = "".join(values)
            parts[1::2] = values
            if told.isprintable() and len(told) <= _LONGEST:
                return "".join(parts)
        except (KeyError, TypeError):  # one is missing, or no string
            pass
        values = tuple(event.get(name, "?") for name in self.names)
        parts[1::2] = [
            printable(
                value if type(value) is str and not spec else _formatted(value, spec), _LONGEST
            )
            for value, spec in zip(values, self.specs, strict=True)
        ]
        return "".join(parts)


@lru_cache(maxsize=512)
def form_of(text: str, prefix: str) -> Form:
    """The same for all events that have that text."""
    return Form.of(text, prefix)


def _formatted(value: object, spec: str) -> str:
    try:
        return format(value, spec)
    except Exception:  # what it means to show itself is its own affair, the log is ours
        return safe_str(value)


def event_text(event: LogEvent) -> str:
    """The event in words: one line, or a title and indented facts. No value can add a line."""
    text = event.get("log_format")
    if _subsystem(event) and isinstance(text, str):
        return form_of(text, "").filled(event)
    return "\n".join(printable(line, _LONGEST) for line in formatEvent(event).splitlines())


def _subsystem(event: LogEvent) -> str | None:
    return subsystem_of(event.get("log_namespace") or "")


@lru_cache(maxsize=512)
def subsystem_of(namespace: str) -> str | None:
    """Which of ours it is; None where it is somebody else's."""
    match = _SUBSYSTEM.match(namespace)
    return match[1] if match else None
