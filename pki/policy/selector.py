"""Selectors: what an attestor has proven of a caller, one fact each."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Self

from attrs import frozen

from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet
from pki.spiffe import SpiffeId

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
#: What useradd takes, and what directories hand out besides (``DOMAIN\user``, ``user@realm``).
_USER = re.compile(r"[!-9;-~]{1,256}", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,200}\.(service|scope|socket|timer|slice)", re.ASCII)
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class UnknownSelector(Malformed):
    """The text is no selector: its kind is unknown, or its value is none of that kind."""

    code = Code.UNKNOWN_SELECTOR


@frozen
class SelectorKind:
    """One kind of fact: how its values are written, so that whoever writes an entry is told of a mistake."""

    name: str
    """What stands before the value: ``unix:uid``. It has no colon at its end."""
    is_value: Callable[[str], bool]
    """Whether a text is a value of this kind."""
    example: str
    """A whole selector of it, for people."""


@frozen(order=True)
class Selector:
    """One fact about a caller: ``unix:uid:1000``. ``Selector.parse(str(x)) == x``."""

    kind: str
    """What was looked at: a key of :data:`KINDS`."""
    value: str
    """What was found."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`UnknownSelector`, which tells the kinds that there are."""
        for kind in KINDS.values():
            if text.startswith(f"{kind.name}:"):
                value = text[len(kind.name) + 1 :]
                if not kind.is_value(value):
                    raise UnknownSelector(
                        f"{discreet(text, 120)!r} is no selector: write it like {kind.example}"
                    )
                return cls(kind.name, value)
        name, is_x509, _ = text.partition(":spiffe://")
        meant = name if is_x509 else text.rpartition(":")[0]
        likely = [kind for kind in KINDS if kind.endswith(f":{meant}")]
        likely = likely or get_close_matches(meant, KINDS, 1, 0.5)
        remedy = f"did you mean {KINDS[likely[0]].example}? " if likely else ""
        raise UnknownSelector(
            f"{discreet(text, 120)!r} is no selector: {remedy}there are {_there_are(text)}"
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def _is_number(text: str) -> bool:
    # 2**32 - 1 means "no user" to the kernel.
    return bool(_NUMBER.fullmatch(text)) and int(text) < 2**32 - 1


def _is_spiffe_id(text: str) -> bool:
    try:
        return bool(SpiffeId.parse(text).path)
    except PkiError:
        return False


def is_label(text: str) -> bool:
    """Whether ``text`` is 1 to 64 lower-case letters, digits, dots, dashes and underscores, as names of tokens are."""
    return _LABEL.fullmatch(text) is not None


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


_kinds = {
    kind.name: kind
    for kind in (
        SelectorKind("unix:uid", _is_number, "unix:uid:1000"),
        SelectorKind("unix:gid", _is_number, "unix:gid:1000"),
        SelectorKind("unix:user", _matches(_USER), "unix:user:alice"),
        SelectorKind("systemd:unit", _matches(_UNIT), "systemd:unit:api.service"),
        SelectorKind("token", is_label, "token:web"),
        SelectorKind("x509", _is_spiffe_id, "x509:spiffe://mesh.local/service/api"),
    )
}
#: The kinds that there are, by name: those above, and what :func:`declare` has added.
KINDS: Mapping[str, SelectorKind] = MappingProxyType(_kinds)


def _there_are(text: str) -> str:
    """Those that begin as ``text`` does, or else one of each beginning."""
    families: dict[str, list[SelectorKind]] = {}
    for kind in KINDS.values():
        families.setdefault(kind.name.partition(":")[0], []).append(kind)
    near = families.get(text.partition(":")[0]) or [kinds[0] for kinds in families.values()]
    return ", ".join(kind.example for kind in near)


def declare(kind: SelectorKind) -> None:
    """Have selectors of one more kind in this process; once more is no harm.

    Raises :class:`ValueError` where it could be taken for a kind that there is, or its example for
    none of it: both are mistakes of whoever wrote the kind.
    """
    if _kinds.get(kind.name) == kind:
        return
    for known in _kinds:
        if f"{known}:".startswith(f"{kind.name}:") or f"{kind.name}:".startswith(f"{known}:"):
            raise ValueError(f"a selector of {kind.name} could be taken for one of {known}")
    value = kind.example.removeprefix(f"{kind.name}:")
    if value == kind.example or not kind.is_value(value):
        raise ValueError(f"{kind.example!r} is no example of {kind.name}")
    _kinds[kind.name] = kind


def values_of(kind: str, selectors: Iterable[Selector]) -> tuple[str, ...]:
    """What was found of one kind."""
    return tuple(selector.value for selector in selectors if selector.kind == kind)


def spoken(selectors: Collection[Selector]) -> str:
    """For people: all of them, in order."""
    return ", ".join(map(str, sorted(selectors))) or "nothing"
