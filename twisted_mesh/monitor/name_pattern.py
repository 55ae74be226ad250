"""Which names in certificates are meant: SPIFFE IDs by pattern, and host names with all below them."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Self

from attrs import frozen

from pki.errors import Malformed, discreet
from pki.spiffe import SpiffePattern

_SPIFFE = "spiffe://"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LONGEST = 253
_BELOW = "*."
#: What the index has host names as: the label that says most comes first, so that a subtree is a range.
HOST = "dns:"
ADDRESS = "ip:"
OTHER = "uri:"


def indexed_host(name: str) -> str:
    """A host name as the index has it: ``dns:com.example.www``."""
    return HOST + ".".join(reversed(name.split(".")))


def indexed_uri(name: str) -> str:
    """A URI as the index has it: SPIFFE IDs as they are."""
    return name if name.startswith(_SPIFFE) else OTHER + name


def shown_name(name: str) -> str:
    """A name of the index as people write it."""
    if name.startswith(HOST):
        return ".".join(reversed(name.removeprefix(HOST).split(".")))
    return name.removeprefix(ADDRESS).removeprefix(OTHER)


@frozen(slots=False)
class NamePattern:
    """``spiffe://TD/service/**``, ``www.example.com`` or ``*.example.com``. ``parse(str(x)) == x``."""

    text: str
    spiffe: SpiffePattern | None
    """None for host names."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`Malformed`. ``*.example.com`` is every name below it, however deep, and not itself."""
        if text.startswith(_SPIFFE):
            return cls(text, SpiffePattern.parse(text))
        name = text.lower()
        labels = name.removeprefix(_BELOW).split(".")
        if len(name) > _LONGEST or not all(_LABEL.fullmatch(label) for label in labels):
            raise Malformed(
                f"{discreet(text, 80)!r} is no pattern of names: write spiffe://TD/service/**, www.example.com or "
                "*.example.com"
            )
        return cls(name, None)

    def __str__(self) -> str:
        return self.text

    def matches(self, name: str) -> bool:
        """Whether a URI or host name of a certificate is meant, as it stands there."""
        return self._form.fullmatch(name) is not None

    @property
    def ranges(self) -> Sequence[tuple[str, str]]:
        """Whatever is meant lies in one of these of the index: at or after the first, before the second."""
        if self.spiffe is None:
            if self.text.startswith(_BELOW):
                return [_below(indexed_host(self.text.removeprefix(_BELOW)) + ".")]
            parent = self.text.partition(".")[2]
            return [
                _only(indexed_host(self.text)),
                *([_only(indexed_host(f"*.{parent}"))] if parent else []),
            ]
        literal = f"{_SPIFFE}{self.spiffe.trust_domain}"
        for segment in self.spiffe.segments:
            if segment in ("*", "**"):
                return [_below(f"{literal}/")]
            literal += f"/{segment}"
        return [_only(literal)]

    @cached_property
    def _form(self) -> re.Pattern[str]:
        if self.spiffe is None:
            if self.text.startswith(_BELOW):
                # A certificate for *.example.com is as good as any name below it.
                return re.compile(r"[^\0]+\." + re.escape(self.text.removeprefix(_BELOW)), re.ASCII)
            parent = self.text.partition(".")[2]
            own = re.escape(self.text)
            return re.compile(rf"{own}|\*\.{re.escape(parent)}" if parent else own, re.ASCII)
        forms = [re.escape(f"{_SPIFFE}{self.spiffe.trust_domain}")]
        wild = "[a-zA-Z0-9._-]+"
        for segment in self.spiffe.segments:
            if segment == "**":
                forms.append(f"/{wild}(?:/{wild})*")
            else:
                forms.append("/" + (wild if segment == "*" else re.escape(segment)))
        return re.compile("".join(forms), re.ASCII)


def _below(prefix: str) -> tuple[str, str]:
    """All that begins so."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _only(name: str) -> tuple[str, str]:
    return name, name + "\0"
