"""Selectors: what an attestor has proven of a caller, one fact each."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Self

from attrs import frozen

from pki.errors import Malformed, PkiError, printable
from pki.spiffe import SpiffeId

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
#: What useradd takes, and what directories hand out besides (``DOMAIN\user``, ``user@realm``).
_USER = re.compile(r"[!-9;-~]{1,256}", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,200}\.(service|scope|socket|timer|slice)", re.ASCII)
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class UnknownSelector(Malformed):
    """The text is no selector: its kind is unknown, or its value is none of that kind."""

    code = "unknown-selector"


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
        for kind, (is_one, example) in KINDS.items():
            if text.startswith(f"{kind}:"):
                value = text[len(kind) + 1 :]
                if not is_one(value):
                    raise UnknownSelector(
                        f"{printable(text, 120)!r} is no selector: write it like {example}"
                    )
                return cls(kind, value)
        kind, is_x509, _ = text.partition(":spiffe://")
        likely = get_close_matches(kind if is_x509 else text.rpartition(":")[0], KINDS, 1, 0.5)
        remedy = f"did you mean {KINDS[likely[0]][1]}? " if likely else ""
        raise UnknownSelector(
            f"{printable(text, 120)!r} is no selector: {remedy}there are {', '.join(e for _, e in KINDS.values())}"
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


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


#: The kinds that there are: whether a text is a value of it, and an example.
KINDS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "unix:uid": (_is_number, "unix:uid:1000"),
    "unix:gid": (_is_number, "unix:gid:1000"),
    "unix:user": (_matches(_USER), "unix:user:alice"),
    "systemd:unit": (_matches(_UNIT), "systemd:unit:api.service"),
    "token": (_matches(_LABEL), "token:web"),
    "x509": (_is_spiffe_id, "x509:spiffe://mesh.local/service/api"),
}


def values_of(kind: str, selectors: Iterable[Selector]) -> tuple[str, ...]:
    """What was found of one kind."""
    return tuple(selector.value for selector in selectors if selector.kind == kind)


def spoken(selectors: Collection[Selector]) -> str:
    """For people: all of them, in order."""
    return ", ".join(map(str, sorted(selectors))) or "nothing"
