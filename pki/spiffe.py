"""SPIFFE IDs, trust domains and patterns, to the letter of the SPIFFE-ID specification.

Nothing is trimmed, percent-decoded or lower-cased: a name either is a SPIFFE ID or it is refused,
so that two parties can never read one name differently.
"""

import re
from functools import lru_cache
from typing import Self

from attrs import field, frozen

from pki.codes import Code
from pki.errors import Malformed, discreet

_SCHEME = "spiffe://"
_MAX_ID = 2048
_LONGEST_REMEMBERED = 256
_MAX_TRUST_DOMAIN = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)

#: The path segment below which only the mesh's own components live.
RESERVED_SEGMENT = "mesh"
_RESERVED = f"/{RESERVED_SEGMENT}"
_BELOW_RESERVED = f"{_RESERVED}/"
#: The path segments below which each agent has its name.
AGENTS = (RESERVED_SEGMENT, "agent")
#: And those below which each group of agents has its name, which is no one's own.
ALIASES = (RESERVED_SEGMENT, "alias")


class NotASpiffeId(Malformed):
    """The text is not a SPIFFE ID, a trust domain or a pattern."""

    code = Code.NOT_A_SPIFFE_ID

    def __init__(self, text: str, rule: str) -> None:
        self.rule = rule
        super().__init__(f"{discreet(text, 120)!r} is not a SPIFFE ID: {rule}")


@frozen(order=True, cache_hash=True)
class TrustDomain:
    """A trust domain's name (SPIFFE-ID section 2.1): ``TrustDomain.parse(str(x)) == x``."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """``mesh.local``, or ``spiffe://mesh.local``. Raises :class:`NotASpiffeId`."""
        name = text.removeprefix(_SCHEME)
        if not name:
            raise NotASpiffeId(text, "the trust domain is empty")
        if len(name) > _MAX_TRUST_DOMAIN:
            raise NotASpiffeId(text, f"a trust domain has at most {_MAX_TRUST_DOMAIN} bytes")
        if not _TRUST_DOMAIN.fullmatch(name):
            raise NotASpiffeId(
                text,
                "a trust domain has only lower-case letters, digits, dots, dashes and underscores",
            )
        return cls(name)

    def __str__(self) -> str:
        return self.name

    @property
    def id(self) -> "SpiffeId":
        """The trust domain's own SPIFFE ID, which has no path."""
        return SpiffeId(self)

    def member(self, *segments: str) -> "SpiffeId":
        """The ID below this trust domain with those path segments. Raises :class:`NotASpiffeId`."""
        return SpiffeId.parse(f"{_SCHEME}{self.name}/{'/'.join(segments)}")


@frozen(order=True, cache_hash=True)
class SpiffeId:
    """The name of a workload (SPIFFE-ID section 2). ``SpiffeId.parse(str(x)) == x``."""

    trust_domain: TrustDomain
    path: str = ""
    _text: str = field(init=False, repr=False, eq=False)

    @_text.default
    def _written(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Raises :class:`NotASpiffeId`, which names the rule that was broken."""
        return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _spelled(text)

    def __str__(self) -> str:
        return self._text

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments; none for a trust domain's own ID."""
        return tuple(self.path.split("/")[1:])

    @property
    def name(self) -> str:
        """The last path segment; empty for a trust domain's own ID."""
        return self.path.rpartition("/")[2]

    @property
    def is_reserved(self) -> bool:
        """Whether the ID is in ``/mesh/**``, where only the mesh's own components live."""
        return self.path == _RESERVED or self.path.startswith(_BELOW_RESERVED)

    @property
    def agent(self) -> str | None:
        """The name of the agent that it is the ID of; None where it is none's."""
        return self.segments[2] if self.segments[:2] == AGENTS and len(self.segments) == 3 else None

    @property
    def alias(self) -> str | None:
        """The name of the group of agents that it stands for; None where it stands for none."""
        return (
            self.segments[2] if self.segments[:2] == ALIASES and len(self.segments) == 3 else None
        )

    @property
    def is_ca(self) -> bool:
        """Whether it is the name that the mesh's CA serves under."""
        return self.path == "/mesh/ca"


@frozen
class SpiffePattern:
    """Which SPIFFE IDs are meant: ``*`` stands for one path segment, a last ``**`` for one or more.

    The trust domain is literal. ``SpiffePattern.parse(str(x)) == x``.
    """

    trust_domain: TrustDomain
    segments: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`NotASpiffeId`."""
        return cls(*_parse(text, wildcards=True))

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}" + "".join(f"/{s}" for s in self.segments)

    def matches(self, spiffe_id: SpiffeId) -> bool:
        """Whether that ID is meant."""
        if spiffe_id.trust_domain != self.trust_domain:
            return False
        wanted, found = self.segments, spiffe_id.segments
        if wanted[-1:] == ("**",):
            if len(found) < len(wanted):
                return False
            wanted = wanted[:-1]
            found = found[: len(wanted)]
        return len(wanted) == len(found) and all(
            w in ("*", f) for w, f in zip(wanted, found, strict=True)
        )

    def overlaps(self, other: "SpiffePattern") -> bool:
        """Whether there may be an ID that both mean."""
        ours, theirs = self.segments, other.segments
        # So many segments an ID has at least as are written, and exactly so many where ** is none of them.
        fits = (ours[-1:] == ("**",) or len(ours) >= len(theirs)) and (
            theirs[-1:] == ("**",) or len(theirs) >= len(ours)
        )
        return (
            fits
            and self.trust_domain == other.trust_domain
            and all(
                one == another or not {"*", "**"}.isdisjoint((one, another))
                for one, another in zip(ours, theirs, strict=False)
            )
        )


@lru_cache(maxsize=4096)
def _spelled(text: str) -> SpiffeId:
    trust_domain, segments = _parse(text)
    return SpiffeId(trust_domain, "".join(f"/{segment}" for segment in segments))


@lru_cache(maxsize=4096)
def _remembered(text: str) -> SpiffeId:
    """Whoever signs or judges reads the same few IDs again and again."""
    return _spelled(text)


def _parse(text: str, *, wildcards: bool = False) -> tuple[TrustDomain, tuple[str, ...]]:
    if not text.startswith(_SCHEME):
        raise NotASpiffeId(text, f"it begins with {_SCHEME}")
    if len(text.encode("utf-8", "surrogatepass")) > _MAX_ID:
        raise NotASpiffeId(text, f"it has at most {_MAX_ID} bytes")
    authority, slash, path = text.removeprefix(_SCHEME).partition("/")
    try:
        trust_domain = TrustDomain.parse(authority)
    except NotASpiffeId as error:
        raise NotASpiffeId(text, error.rule) from None
    if not slash:
        return trust_domain, ()
    segments = tuple(path.split("/"))
    for position, segment in enumerate(segments):
        if wildcards and (segment == "*" or (segment == "**" and position == len(segments) - 1)):
            continue
        if not segment:
            raise NotASpiffeId(text, "its path has no empty segments and no slash at the end")
        if segment in (".", ".."):
            raise NotASpiffeId(text, "its path has no . or .. segments")
        if not _SEGMENT.fullmatch(segment):
            raise NotASpiffeId(
                text,
                "its path has only letters, digits, dots, dashes and underscores between slashes",
            )
    return trust_domain, segments
