"""One stream of SDS: what a client has said, what it was told, and what is to be told it next.

Both variants of the xDS protocol, as its specification has them, without a network and without a clock: a request or
an offer goes in, and :meth:`due` says what is to be sent, until it has nothing more.
"""

from collections.abc import Iterable
from enum import Enum
from hashlib import sha256

from attrs import define, field, frozen

from pki.errors import Malformed
from twisted_mesh.workload.sds_messages import (
    SECRET_URL,
    DeltaRequest,
    DeltaResponse,
    Request,
    Response,
    Secret,
)
from twisted_mesh.workload.sds_offer import Offer

#: Asks for whatever there is.
WILDCARD = "*"
#: Of one stream, at once.
MOST_NAMES = 1000
_LONGEST_NAME = 2100
_REMEMBERED = 16
#: Said of what the client has to be told anew, whether it is there or not. No secret has this version.
_STALE = ""


class Outcome(Enum):
    """What a request says of the answer before it."""

    ASKED = "asked"
    """Nothing: it asks, for the first time or for something else."""
    APPLIED = "applied"
    REFUSED = "refused"
    STALE = "stale"
    """It is about an answer that another one has overtaken."""


@frozen
class Heard:
    """What a request has told."""

    outcome: Outcome
    words: str = ""
    """Of the client, as they came: why it refused."""
    about: tuple[str, ...] = ()
    """Which names were in the answer that it applied or refused."""


@define(eq=False)
class _Answers:
    """The nonces of one stream, and what was in the answers that may not be applied yet."""

    nonce: str = ""
    """Of the last answer; empty before it."""
    _count: int = 0
    _names: dict[str, tuple[str, ...]] = field(factory=dict)

    def next(self, names: Iterable[str]) -> str:
        self._count += 1
        self.nonce = str(self._count)
        self._names[self.nonce] = tuple(names)
        self._names.pop(str(self._count - _REMEMBERED), None)
        return self.nonce

    def names(self, nonce: str) -> tuple[str, ...]:
        return self._names.get(nonce, ())

    def judged(self, nonce: str, error: str | None) -> Heard:
        """What a request tells of the answer that it names."""
        if not (nonce and self.nonce):
            return Heard(Outcome.ASKED)
        outcome = Outcome.APPLIED if error is None else Outcome.REFUSED
        return Heard(outcome, error or "", self.names(nonce))


def _check(type_url: str, names: Iterable[str], count: int) -> None:
    if type_url not in ("", SECRET_URL):
        raise Malformed(f"only secrets are told here: type_url is {SECRET_URL}")
    if any(len(name) > _LONGEST_NAME for name in names):
        raise Malformed(f"the name of a secret has at most {_LONGEST_NAME} characters")
    if count > MOST_NAMES:
        raise Malformed(
            f"one stream asks for at most {MOST_NAMES} secrets: ask for others on another one"
        )


def _version_of(told: dict[str, str]) -> str:
    text = "\n".join(f"{name} {version}" for name, version in sorted(told.items()))
    return sha256(text.encode()).hexdigest()[:16]


@define(eq=False)
class WholeStream:
    """StreamSecrets: each request names all that is wanted.

    Of types other than listeners and clusters an answer holds what is new, and says nothing of what is not there: a
    client waits for that. A request about any answer but the last one is passed over; its successor is on its way.
    """

    _names: frozenset[str] = frozenset()
    _is_wild: bool = False
    _has_named: bool = False
    _told: dict[str, str] = field(factory=dict)
    _answers: _Answers = field(factory=_Answers)

    @property
    def names(self) -> frozenset[str]:
        """What is asked for by name."""
        return self._names

    def ask(self, request: Request) -> Heard:
        """Raises :class:`Malformed`; then it is to be ended."""
        _check(request.type_url, request.names, len(request.names))
        last = self._answers.nonce
        if last and request.nonce and request.nonce != last:
            return Heard(Outcome.STALE)
        names = frozenset(request.names)
        # Nobody who has named something asks for everything by naming nothing any more.
        self._has_named = self._has_named or bool(names)
        self._is_wild = WILDCARD in names or not self._has_named
        self._names = names - {WILDCARD}
        if not self._is_wild:
            # What is given up and asked for again is told again: it may have been thrown away.
            self._told = {at: told for at, told in self._told.items() if at in self._names}
        return self._answers.judged(request.nonce, request.error)

    def due(self, offer: Offer) -> Response | None:
        """What is to be sent now; None where nothing is."""
        wanted = self._names.union(offer.names) if self._is_wild else self._names
        fresh = _fresh(wanted, offer, self._told)
        if not fresh:
            return None
        self._told.update((secret.name, secret.version) for secret in fresh)
        nonce = self._answers.next(secret.name for secret in fresh)
        return Response(_version_of(self._told), nonce, tuple(secret.data for secret in fresh))


@define(eq=False)
class DeltaStream:
    """DeltaSecrets: each request changes what is wanted, whatever else it says.

    What is asked for and is not there is told as removed; what is asked for anew is told anew.
    """

    _names: set[str] = field(factory=set)
    _is_wild: bool = False
    _has_begun: bool = False
    _told: dict[str, str] = field(factory=dict)
    _absent: set[str] = field(factory=set)
    """Of the names that are asked for, those that were told as removed."""
    _answers: _Answers = field(factory=_Answers)

    @property
    def names(self) -> frozenset[str]:
        """What is asked for by name."""
        return frozenset(self._names)

    def ask(self, request: DeltaRequest) -> Heard:
        """Raises :class:`Malformed`; then it is to be ended."""
        named = (*request.subscribe, *request.unsubscribe)
        count = len(self._names.difference(request.unsubscribe).union(request.subscribe))
        _check(request.type_url, named, max(count, len(request.versions)))
        is_first, self._has_begun = not self._has_begun, True
        if is_first:
            self._is_wild = not request.subscribe
            self._told = dict(request.versions)
        for name in request.unsubscribe:
            self._give_up(name)
        for name in request.subscribe:
            if name == WILDCARD:
                self._is_wild = True
            else:
                self._names.add(name)
                self._absent.discard(name)
                if not is_first:
                    self._told.pop(name, None)
        if not self._is_wild:
            self._told = {at: told for at, told in self._told.items() if at in self._names}
        # Here answers may cross: also of one that another has overtaken it is told whether it was applied.
        return self._answers.judged(request.nonce, request.error)

    def _give_up(self, name: str) -> None:
        if name == WILDCARD:
            self._is_wild = False
            return
        if name not in self._names:
            return
        self._names.discard(name)
        self._absent.discard(name)
        if self._is_wild:
            # It may be wanted all the same; the client has to hear whether it is.
            self._told[name] = _STALE
        else:
            self._told.pop(name, None)

    def due(self, offer: Offer) -> DeltaResponse | None:
        """What is to be sent now; None where nothing is."""
        wanted = self._names.union(offer.names) if self._is_wild else self._names
        fresh = _fresh(wanted, offer, self._told)
        removed: list[str] = []
        if offer.is_whole:
            gone = self._told.keys() - {name for name in wanted if offer.get(name) is not None}
            asked = {name for name in self._names - self._absent if offer.get(name) is None}
            removed = sorted(gone | asked)
        if not fresh and not removed:
            return None
        self._told.update((secret.name, secret.version) for secret in fresh)
        self._absent.difference_update(secret.name for secret in fresh)
        for name in removed:
            self._told.pop(name, None)
        self._absent.update(self._names.intersection(removed))
        nonce = self._answers.next([*(secret.name for secret in fresh), *removed])
        return DeltaResponse(_version_of(self._told), nonce, tuple(fresh), tuple(removed))


def _fresh(wanted: Iterable[str], offer: Offer, told: dict[str, str]) -> list[Secret]:
    """What is there and was not told, or not as it is now; in the order of the names."""
    found = (offer.get(name) for name in sorted(wanted))
    return [secret for secret in found if secret and told.get(secret.name) != secret.version]
