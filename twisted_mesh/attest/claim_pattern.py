"""What the claims of a token must be, and which of them are told: by name, or by JSON Pointer for what lies deeper."""

from collections.abc import Iterator, Mapping

from attrs import frozen

from pki.errors import Malformed, discreet

_MOST_VALUES = 64
_LONGEST_VALUE = 512
_DEEPEST = 8


@frozen
class ClaimPath:
    """Which claim: ``repository``, or by JSON Pointer (RFC 6901) ``/realm_access/roles``. ``str`` writes it back."""

    text: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> "ClaimPath":
        """Raises :class:`Malformed`, which names ``where``."""
        if not text.startswith("/"):
            parts = [text]
        else:
            parts = [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]
        if not all(parts) or len(parts) > _DEEPEST:
            raise Malformed(
                f"{where}: {discreet(text, 60)!r} names no claim: write it like repository, or /realm_access/roles"
            )
        return cls(text, tuple(parts))

    def __str__(self) -> str:
        return self.text

    def values(self, claims: Mapping[str, object]) -> tuple[str, ...]:
        """What is there, as text: of a list all of it; nothing for what is not there, or is no text, number or truth.

        What is very long, or of a very long list, is not told.
        """
        found: object = claims
        for part in self.parts:
            if not isinstance(found, Mapping) or part not in found:
                return ()
            found = found[part]
        several = found if isinstance(found, list) else [found]
        return tuple(_texts(several)) if len(several) <= _MOST_VALUES else ()


def _texts(values: list[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, bool):
            yield "true" if value else "false"
        elif isinstance(value, int):
            yield str(value)
        elif isinstance(value, str) and len(value) <= _LONGEST_VALUE:
            yield value


@frozen
class ClaimPattern:
    """A value, in which ``*`` is anything without a slash, and ``/**`` at the end anything below.

    ``str(ClaimPattern.parse(x, y)) == x``. No token makes it look at a character more than a few times.
    """

    text: str

    @classmethod
    def parse(cls, text: str, where: str) -> "ClaimPattern":
        """Raises :class:`Malformed`, which names ``where``."""
        body = "" if text == "**" else text.removesuffix("/**")
        if not text or "**" in body:
            raise Malformed(
                f"{where}: {discreet(text, 60)!r} is no pattern: * stands for anything without a slash, and ** only at "
                "the end, after a slash, for anything below"
            )
        return cls(text)

    def __str__(self) -> str:
        return self.text

    def matches(self, value: str) -> bool:
        """Whether ``value`` is one of these."""
        if self.text == "**":
            return True
        wanted, given = self.text.split("/"), value.split("/")
        if wanted[-1] == "**":
            wanted = wanted[:-1]
            if len(given) <= len(wanted) or not all(given[len(wanted) :]):
                return False
            given = given[: len(wanted)]
        return len(wanted) == len(given) and all(map(_fits, wanted, given))


def _fits(wanted: str, given: str) -> bool:
    """Whether one segment is as ``wanted``: what is between stars, each as early as it can be."""
    if "*" not in wanted:
        return wanted == given
    first, *between, last = wanted.split("*")
    if len(given) < len(first) + len(last) or not (
        given.startswith(first) and given.endswith(last)
    ):
        return False
    at, end = len(first), len(given) - len(last)
    for piece in between:
        found = given.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@frozen
class ClaimRule:
    """One claim, and what it may be: it has to be there, and one of its values has to be one of these."""

    path: ClaimPath
    allowed: tuple[ClaimPattern, ...]

    def allows(self, claims: Mapping[str, object]) -> bool:
        """Whether it is so."""
        return any(
            pattern.matches(value) for value in self.path.values(claims) for pattern in self.allowed
        )


def claim_rules(table: Mapping[str, str | list[str]], where: str) -> tuple[ClaimRule, ...]:
    """Of a table ``claim = "pattern"`` or ``claim = ["pattern", …]``. Raises :class:`Malformed`."""
    rules = []
    for name, patterns in table.items():
        said = f"{where} {discreet(name, 60)}"
        several = [patterns] if isinstance(patterns, str) else patterns
        if not several:
            raise Malformed(f"{said}: it allows nothing; name at least one pattern")
        allowed = tuple(ClaimPattern.parse(pattern, said) for pattern in several)
        rules.append(ClaimRule(ClaimPath.parse(name, where), allowed))
    return tuple(rules)
