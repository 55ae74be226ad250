"""Pins of CA keys: by which keys certain peers must be vouched for, and from when on that is only reported.

A pin is the SHA-256 of a SubjectPublicKeyInfo, written as HTTP's pins were (RFC 7469 section 2.4). It is one of a root
or of an issuing CA: a workload has another key with each certificate. A pin can only have a peer refused, never let in.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Self

from attrs import evolve, field, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, discreet
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.certificate import encoded_parts
from pki.svid.x509svid import subject_of
from pki.validity import parse_duration, parse_rfc3339, rfc3339

#: So many rules, so many hashes in each, and so many characters of all: they are told to the CA.
MOST_RULES, MOST_HASHES, LONGEST_RULES = 64, 16, 32 * 1024
#: For so long may pins be enforced: whoever never has to look at them again cannot move them in time.
LONGEST = timedelta(days=366)
_PREFIX = "sha256/"
#: 32 bytes have one text: the last character before the padding has two bits that are nothing.
_BASE64 = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", re.ASCII)
_AS_FINGERPRINT = re.compile(r"(sha256:)?[0-9a-f:]{64,95}", re.ASCII | re.IGNORECASE)
_PRINTED_BY = "pki-inspect fingerprint prints it of a CA's certificate, as pin"


class BadPin(Malformed):
    """A pin, or what is said of pins, cannot be used."""

    code = Code.BAD_PIN


@frozen(order=True, cache_hash=True)
class SpkiHash:
    """The SHA-256 of a SubjectPublicKeyInfo. ``SpkiHash.parse(str(x)) == x``."""

    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """``sha256/`` and the base64 of 32 bytes, padded: one text for each. Raises :class:`BadPin`."""
        if _AS_FINGERPRINT.fullmatch(text):
            raise BadPin(
                f"{text[:100]} is a fingerprint of a whole certificate, and a pin is of its key alone: {_PRINTED_BY}"
            )
        algorithm, slash, written = text.partition("/")
        if not slash or f"{algorithm}/" != _PREFIX:
            raise BadPin(
                f"{discreet(text, 100)!r} is no pin: it is written sha256/BASE64, and there is no other algorithm; "
                f"{_PRINTED_BY}"
            )
        if not _BASE64.fullmatch(written):
            raise BadPin(
                f"{_PREFIX}{discreet(written, 100)} is damaged: 32 bytes are 44 characters of base64 with + and /, the "
                f"last of them =; {_PRINTED_BY}"
            )
        return cls(base64.b64decode(written))

    @staticmethod
    def is_written(text: str) -> bool:
        """Whether :meth:`parse` reads it."""
        return text.startswith(_PREFIX) and bool(_BASE64.fullmatch(text, len(_PREFIX)))

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """That of the certificate's key, as it is written there. Raises what damaged DER does."""
        return cls.of_spki(encoded_parts(certificate)[2])

    @classmethod
    def of_spki(cls, spki: bytes) -> Self:
        """That of a SubjectPublicKeyInfo in DER."""
        return cls(hashlib.sha256(spki).digest())

    def __str__(self) -> str:
        return f"{_PREFIX}{base64.b64encode(self.digest).decode()}"


@lru_cache(maxsize=64)
def _of_ca(certificate: x509.Certificate) -> SpkiHash:
    """Remembered: all peers stand below the same few CAs."""
    return SpkiHash.of(certificate)


class PinMode(StrEnum):
    """What becomes of a peer that is not vouched for by a pinned key."""

    REPORT = "report"
    ENFORCE = "enforce"


@frozen
class PinRule:
    """Peers that must be vouched for by one of some keys. ``PinRule.parse(str(x)) == x``."""

    pattern: SpiffePattern
    hashes: tuple[SpkiHash, ...]
    """Two at least, one of them of a key that is not in use yet."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``PATTERN=sha256/BASE64,sha256/BASE64``. Raises :class:`PkiError`."""
        written, _, hashes = text.partition("=")
        pattern = SpiffePattern.parse(written)
        if pattern.segments == ("mesh", "ca"):
            raise BadPin(
                f"{pattern} is the CA, which is no peer and is told by its root: pin that with --ca-fingerprint"
            )
        found: list[SpkiHash] = []
        for number, one in enumerate(hashes.split(",") if hashes else (), 1):
            try:
                found.append(SpkiHash.parse(one))
            except BadPin as error:
                raise BadPin(f"{pattern}, pin {number}: {error}") from None
        if len(found) > MOST_HASHES:
            raise BadPin(f"{pattern} has {len(found)} pins, and {MOST_HASHES} is the most")
        if twice := next((one for one in found if found.count(one) > 1), None):
            raise BadPin(f"{pattern} has {twice} twice: a backup is another key's")
        if len(found) < 2:
            raise BadPin(
                f"{pattern} has {'one pin' if found else 'no pin'}: give two at least, that of a root or issuing CA in "
                "use and that of a key to move to, which mesh-ctl ca root status announces"
            )
        return cls(pattern, tuple(found))

    def __str__(self) -> str:
        return f"{self.pattern}={','.join(map(str, self.hashes))}"

    def is_met_by(self, keys: Collection[SpkiHash], withdrawn: Collection[SpkiHash] = ()) -> bool:
        """Whether one of its pins that are not withdrawn is among ``keys``."""
        return any(one in keys and one not in withdrawn for one in self.hashes)


@frozen
class PinSet:
    """All pins of an endpoint, what they do, and until when.

    Every rule that a peer's ID matches must hold: one more rule never lets anybody in.
    """

    rules: tuple[PinRule, ...] = ()
    mode: PinMode = PinMode.REPORT
    until: datetime | None = None
    """From then on they only report; set wherever they are enforced."""
    withdrawn: frozenset[SpkiHash] = field(default=frozenset(), repr=False)
    """Pins that do not count any more, by word of the CA that they constrain: only ever more of them."""

    @classmethod
    def parse(
        cls,
        rules: Sequence[str],
        mode: str | None,
        until: str | None,
        *,
        now: datetime,
        spoken: Callable[[str], str] = "--{}".format,
    ) -> Self:
        """What ``peer-pin``, ``peer-pin-mode`` and ``peer-pin-until`` say; ``spoken`` names them in sentences.

        Raises :class:`PkiError`.
        """
        option, mode_option, until_option = map(
            spoken, ("peer-pin", "peer-pin-mode", "peer-pin-until")
        )
        if not rules:
            for name, value in ((mode_option, mode), (until_option, until)):
                if value is not None:
                    raise BadPin(f"{name} says nothing without a pin: give one with {option}")
            return cls()
        try:
            found = _read_rules(rules)
        except PkiError as error:
            raise BadPin(f"{option}: {error}") from None
        if mode is not None and mode not in list(PinMode):
            raise BadPin(f"{mode_option} {discreet(mode, 40)!r} is neither report nor enforce")
        chosen = PinMode.REPORT if mode is None else PinMode(mode)
        return cls(
            found, chosen, _end(until, now, until_option, is_needed=chosen is PinMode.ENFORCE)
        )

    @classmethod
    def told(cls, rules: Sequence[str], mode: str, until: str | None) -> Self:
        """What another one says that it has, whatever its clock says. Raises :class:`PkiError`."""
        if mode not in list(PinMode):
            raise BadPin(f"{discreet(mode, 40)!r} is no mode of pins")
        end = None if until is None else parse_rfc3339(until)
        return cls(_read_rules(rules), PinMode(mode), end)

    def __bool__(self) -> bool:
        return bool(self.rules)

    @property
    def lines(self) -> tuple[str, ...]:
        """All that is said of them, as the file of ``--peer-pin-file`` has it; nothing where there are none."""
        if not self.rules:
            return ()
        ends = () if self.until is None else (f"until {rfc3339(self.until)}",)
        return (*map(str, self.rules), f"mode {self.mode}", *ends)

    def enforced_at(self, now: datetime) -> bool:
        """Whether a peer that breaks them is refused then; else that is only reported."""
        return self.mode is PinMode.ENFORCE and self.until is not None and now < self.until

    def narrowed(self, withdrawn: Iterable[SpkiHash]) -> "PinSet":
        """Without these pins too; the same object where none of them counts here.

        There is no way back: what was withdrawn stays so for as long as the process lives.
        """
        more = (self._named & frozenset(withdrawn)) - self.withdrawn
        return evolve(self, withdrawn=self.withdrawn | more) if more else self

    @cached_property
    def _named(self) -> frozenset[SpkiHash]:
        return frozenset(one for rule in self.rules for one in rule.hashes)

    @property
    def lost(self) -> tuple[PinRule, ...]:
        """Rules of which every pin is withdrawn: nobody can meet them."""
        return tuple(rule for rule in self.rules if self.withdrawn.issuperset(rule.hashes))

    def unmet(self, keys: Collection[SpkiHash]) -> tuple[PinRule, ...]:
        """Rules that a peer would break who is vouched for by these keys alone."""
        return tuple(rule for rule in self.rules if not rule.is_met_by(keys, self.withdrawn))

    def without_backup(self, path: Sequence[x509.Certificate]) -> tuple[PinRule, ...]:
        """Rules of which every pin is of this path, leaf to root: the day it ends, none of them is left."""
        keys = set(map(_of_ca, path[1:]))
        return tuple(rule for rule in self.rules if keys.issuperset(rule.hashes))

    def problems(
        self, spiffe_id: SpiffeId, path: Sequence[x509.Certificate]
    ) -> tuple[Problem, ...]:
        """What breaks them, of a path to a root that is believed, leaf first; the leaf's own key does not count."""
        above = {_of_ca(cert): cert for cert in path[1:]}
        return tuple(
            self._broken(rule, spiffe_id, path[0], above) for rule in self._unmet(spiffe_id, above)
        )

    def are_broken_by(self, spiffe_id: SpiffeId, path: Sequence[x509.Certificate]) -> bool:
        """Whether there are such problems."""
        return any(self._unmet(spiffe_id, set(map(_of_ca, path[1:]))))

    def _unmet(self, spiffe_id: SpiffeId, keys: Collection[SpkiHash]) -> Iterator[PinRule]:
        for rule in self.rules:
            if rule.pattern.matches(spiffe_id) and not rule.is_met_by(keys, self.withdrawn):
                yield rule

    def _broken(
        self,
        rule: PinRule,
        spiffe_id: SpiffeId,
        leaf: x509.Certificate,
        above: dict[SpkiHash, x509.Certificate],
    ) -> Problem:
        subject = str(spiffe_id)
        if self.withdrawn.issuperset(rule.hashes):
            return Problem(
                Code.PINS_WITHDRAWN,
                f"every pin for {rule.pattern} was withdrawn: its CA says that none of these keys is to be relied on",
                "ask whoever runs the CA which keys count now; to be let through meanwhile somebody on this machine "
                "puts --peer-pin-mode to report, or new pins in",
                "--peer-pin",
                subject,
            )
        found = ", ".join(f"{subject_of(cert)} {key}" for key, cert in above.items())
        said = f"{spiffe_id} is vouched for by {found}, and none of these keys is pinned for {rule.pattern}"
        if SpkiHash.of(leaf) in rule.hashes:
            said += "; its own key is, which counts not, since it has another with each certificate"
        elif taken := sorted(self.withdrawn.intersection(rule.hashes).intersection(above)):
            said += f"; {taken[0]} was, and its CA has withdrawn it"
        return Problem(
            Code.PIN_MISMATCH,
            said,
            "compare with what its CA announces (mesh-ctl ca root status): where the CA has moved to another key, pin "
            "that one; else somebody else's CA vouches for it",
            "--peer-pin",
            subject,
        )


def _read_rules(texts: Sequence[str]) -> tuple[PinRule, ...]:
    """Raises :class:`PkiError`."""
    if len(texts) > MOST_RULES or sum(map(len, texts)) > LONGEST_RULES:
        raise BadPin(f"{MOST_RULES} rules of {LONGEST_RULES} characters together are the most")
    found: dict[SpiffePattern, PinRule] = {}
    for rule in map(PinRule.parse, texts):
        if rule.pattern in found:
            raise BadPin(
                f"{rule.pattern} has two rules, and both would have to hold: write all its pins in one"
            )
        found[rule.pattern] = rule
    return tuple(found.values())


def _end(text: str | None, now: datetime, option: str, *, is_needed: bool) -> datetime | None:
    """Raises :class:`PkiError`."""
    if text is None:
        if is_needed:
            raise BadPin(
                f"pins that are enforced need an end, from when on they only report: give {option} and a time, "
                f"{LONGEST.days} days from now at most, like {rfc3339(now + LONGEST / 2)}"
            )
        return None
    try:
        until = parse_rfc3339(text)
    except PkiError as error:
        try:
            meant = now + parse_duration(text)
        except (PkiError, OverflowError):
            raise BadPin(f"{option}: {error}") from None
        raise BadPin(
            f"{option} {text} would begin anew at each start, and never be over: write the time itself, which is "
            f"{rfc3339(meant)} today"
        ) from None
    if until > now + LONGEST:
        raise BadPin(
            f"{option} {rfc3339(until)} is too far away: {LONGEST.days} days from now at most, so that somebody looks "
            "at the pins while there is time to move them"
        )
    return until
