"""What a policy is asked about: the input of its expressions, version 1, bounded and always whole.

Every member is there in every question, and empty where it means nothing: a member that is missing is a mistake in the
expression, and found before it is used.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from attrs import AttrsInstance, evolve, field, fields, frozen, has

from pki.errors import Malformed, discreet
from pki.rules.errors import PolicyUnavailable

#: The version of the input.
INPUT_VERSION = 1
#: Bytes of a text of the input, in UTF-8, and of a text in a list of it.
LONGEST_TEXT = 2048
LONGEST_ITEM = 512
#: Items of a list of the input.
LONGEST_LIST = 128
_OF_CA = frozenset(("principal", "selectors", "request", "entry", "source"))
_OF_ENDPOINT = frozenset(("peer",))
#: Where a time means nothing.
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class RuleAction(StrEnum):
    """What is about to happen."""

    @property
    def is_of_endpoint(self) -> bool:
        """Whether an endpoint asks, and not the CA."""
        return self in (RuleAction.CONNECT, RuleAction.ACCEPT)

    def knows(self, path: str) -> bool:
        """Whether that part of the input means anything then.

        An endpoint decides of a certificate, once for all its connections: where they come from is no part of it.
        """
        unknown = _OF_CA if self.is_of_endpoint else _OF_ENDPOINT
        return path.partition(".")[0] not in unknown

    ISSUE = "issue"
    """The CA signs a first certificate."""
    RENEW = "renew"
    """The CA signs for somebody who has shown an SVID of that name."""
    ISSUE_JWT = "issue-jwt"
    """The CA signs a JWT-SVID."""
    CONNECT = "connect"
    """A connection of ours has reached a peer."""
    ACCEPT = "accept"
    """A peer's connection has reached us."""


@frozen
class PrincipalFacts:
    """Who is asking the CA."""

    kind: str = ""
    id: str = ""
    trust_domain: str = ""
    path: str = ""
    proof: str = ""
    serial: str = ""
    agent: str = ""
    administrator: bool = False


@frozen
class RequestFacts:
    """What is asked for."""

    kind: str = ""
    spiffe_id: str = ""
    trust_domain: str = ""
    path: str = ""
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    ttl: int = 0
    key_algorithm: str = ""
    common_name: str = ""
    audience: tuple[str, ...] = ()


@frozen
class EntryFacts:
    """The registration entry that buys it."""

    id: str = ""
    selectors: tuple[str, ...] = ()
    spiffe_id: str = ""
    parent: str = ""
    comment: str = ""
    hint: str = ""


@frozen
class SourceFacts:
    """Where the question comes from."""

    address: str = ""
    port: int = 0
    transport: str = ""


@frozen
class PeerFacts:
    """Who is at the other end of an endpoint's connection."""

    id: str = ""
    trust_domain: str = ""
    path: str = ""
    dns_names: tuple[str, ...] = ()
    not_after: datetime = NO_TIME
    issuer: str = ""


@frozen
class Facts:
    """The input of a policy."""

    action: str = RuleAction.ISSUE.value
    principal: PrincipalFacts = field(factory=PrincipalFacts)
    selectors: tuple[str, ...] = ()
    request: RequestFacts = field(factory=RequestFacts)
    entry: EntryFacts = field(factory=EntryFacts)
    time: datetime = NO_TIME
    source: SourceFacts = field(factory=SourceFacts)
    peer: PeerFacts = field(factory=PeerFacts)
    version: int = INPUT_VERSION

    def read(self, path: str) -> object:
        """The value of ``request.spiffe_id``, bounded; raises :class:`~pki.rules.errors.PolicyUnavailable`."""
        value: object = self
        for name in path.split("."):
            value = getattr(value, name)
        return _bounded(path, value)

    def as_input(self) -> dict[str, Any]:
        """The whole input in JSON's shapes, times as text."""
        return {name: _plain(getattr(self, name)) for name in shape_of(Facts)}

    def reading(self, paths: Iterable[str]) -> dict[str, Any]:
        """The variables of an evaluation: only what is read is handed over, which is what it costs."""
        variables: dict[str, Any] = {}
        for path in paths:
            name, _, member = path.partition(".")
            value = self.read(path)
            if member:
                variables.setdefault(name, {})[member] = value
            else:
                variables[name] = value
        return variables

    @classmethod
    def of_input(cls, given: Mapping[str, object], over: Self | None = None) -> Self:
        """Facts as JSON or TOML has them; what is not given is as in ``over``. Raises Malformed."""
        return _filled(over or cls(), given, "")


_Given = TypeVar("_Given", bound=AttrsInstance)


def shape_of(kind: object) -> Mapping[str, object]:
    """The members of a class of facts with their types."""
    return _shape_of(kind)


@cache
def _shape_of(kind: Any) -> Mapping[str, object]:
    hints = get_type_hints(kind)
    return MappingProxyType({member.name: hints[member.name] for member in fields(kind)})


def _bounded(path: str, value: object, longest: int = LONGEST_TEXT) -> object:
    if isinstance(value, str):
        # A character that is no text, as a lone surrogate, is refused by the engine.
        size = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        if size > longest:
            raise PolicyUnavailable(
                "", f"{path} has a text of {size} bytes, and a policy reads {longest}"
            )
        return str(value)
    if isinstance(value, tuple):
        if len(value) > LONGEST_LIST:
            raise PolicyUnavailable(
                "", f"{path} has {len(value)} items, and a policy reads {LONGEST_LIST}"
            )
        return [_bounded(path, item, LONGEST_ITEM) for item in value]
    return value


def _plain(value: object) -> object:
    if has(type(value)):
        return {name: _plain(getattr(value, name)) for name in shape_of(type(value))}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value


def _filled(facts: _Given, given: Mapping[str, object], before: str) -> _Given:
    shape = shape_of(type(facts))
    changes: dict[str, Any] = {}
    for name, value in given.items():
        path = f"{before}{name}"
        if name not in shape:
            raise Malformed(
                f"{discreet(path, 80)} is no member of the input: there are "
                f"{', '.join(f'{before}{known}' for known in shape)}"
            )
        kind = shape[name]
        if isinstance(kind, type) and has(kind):
            if not isinstance(value, Mapping):
                raise Malformed(f"{path} is an object with the members {', '.join(shape_of(kind))}")
            changes[name] = _filled(getattr(facts, name), value, f"{path}.")
        else:
            changes[name] = _value(path, kind, value)
    if changes.get("version", INPUT_VERSION) != INPUT_VERSION:
        raise Malformed(f"the input's version is {INPUT_VERSION}")
    return evolve(facts, **changes)  # type: ignore[misc]


def _value(path: str, kind: object, value: object) -> object:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise Malformed(f"{path} is a list")
        return tuple(_value(f"{path}[{at}]", item, each) for at, each in enumerate(value))
    if kind is datetime:
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise Malformed(f"{path} is a time like 2026-01-31T08:00:00Z") from None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise Malformed(f"{path} is a time with its zone, like 2026-01-31T08:00:00Z")
        return value
    if type(value) is not kind:
        words = {str: "a text", int: "a whole number", bool: "true or false"}
        raise Malformed(f"{path} is {words[kind]}")  # type: ignore[index]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Malformed(f"{path} is a number below 2^63")
    return value
