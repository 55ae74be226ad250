"""What the acts of a log say of certificates, entries and join tokens, ready to be asked for each."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from attrs import define, field

from pki.audit.auditor import Row
from pki.audit.federation_acts import FederationActs
from pki.audit.log import Act, BadEntry, Entry
from pki.errors import Malformed, PkiError
from pki.serial import parse_serial
from pki.svid.revocation_set import Reason
from pki.validity import parse_duration, parse_rfc3339

#: By how much the time of an act and that in its row may differ: the two are taken one after the other.
SLACK = timedelta(minutes=1)
_DEFAULT = "entry default"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: So many acts are written to the scratch tables at once.
_BATCH = 1000
_SCRATCH = """
CREATE TABLE issued (serial TEXT PRIMARY KEY, position INTEGER, at INTEGER, spiffe_id TEXT, entry TEXT,
    tbs TEXT, expires_at TEXT, token TEXT, issuer TEXT, actor TEXT, claim TEXT) WITHOUT ROWID;
CREATE TABLE used (claim TEXT, serial TEXT, position INTEGER, until TEXT, PRIMARY KEY (claim, position))
    WITHOUT ROWID;
CREATE TABLE revoked (serial TEXT PRIMARY KEY, position INTEGER, at INTEGER, reason TEXT, era INTEGER,
    place INTEGER) WITHOUT ROWID;
CREATE TABLE written_off (serial TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE carried_over (serial TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE told (serial TEXT PRIMARY KEY, issuer TEXT) WITHOUT ROWID;
CREATE TABLE seen (serial TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_OF_ONE = """
SELECT i.position, i.at, i.actor, i.spiffe_id, i.entry, i.tbs, i.expires_at, i.issuer, i.claim, r.position, r.at,
    r.reason, r.era, r.place, w.serial, c.serial, t.issuer
FROM (SELECT ? AS serial) s LEFT JOIN issued i USING (serial) LEFT JOIN revoked r USING (serial)
    LEFT JOIN written_off w USING (serial) LEFT JOIN carried_over c USING (serial) LEFT JOIN told t USING (serial)
"""
_UNSEEN = """
SELECT serial, position, at, expires_at FROM issued WHERE serial NOT IN (SELECT serial FROM seen) ORDER BY position
"""
_SPENT = """
SELECT serial, position FROM issued WHERE token = ? AND serial NOT IN (SELECT serial FROM written_off)
ORDER BY position LIMIT 1
"""
#: Of each claim its last use that was not written off.
_USED = """
SELECT claim, serial, max(position), until FROM used WHERE serial NOT IN (SELECT serial FROM written_off)
GROUP BY claim
"""


class Made(NamedTuple):
    """What the log says of an entry or a token that is there."""

    position: int
    facts: Mapping[str, str]


class OfCertificate(NamedTuple):
    """What is said of one serial. Positions are those of acts; None where there is no such act."""

    issued: int | None
    issued_at: datetime | None
    actor: str | None
    spiffe_id: str | None
    entry: str | None
    tbs: str | None
    expires_at: str | None
    issuer: str | None
    """Its first digits."""
    claim: str | None
    """By which it was bought, or what it is a renewal of."""
    ended: int | None
    ended_at: datetime | None
    reason: str | None
    place: tuple[int, int] | None
    """After how many restores it was revoked, and as the how manieth since the text of the log begins."""
    is_written_off: bool
    is_carried_over: bool
    """Whether a restore has revoked it."""
    told: str | None
    """The issuer by which endpoints are told that it is revoked."""


class Unseen(NamedTuple):
    """A certificate that was issued, and of which no row was shown."""

    serial: int
    issued: int
    is_over: bool
    """Whether it may have been pruned."""


class Use(NamedTuple):
    """How a claim was used last."""

    claim: str
    serial: int
    position: int
    until: str | None


@define
class Acts:
    """Takes a whole log, one entry after the other. What grows with the certificates is in a scratch file."""

    entries: dict[str, Made] = field(factory=dict, init=False)
    """Those that were made and not deleted, by id."""
    deleted: dict[str, int] = field(factory=dict, init=False)
    """Entries, and by which act."""
    tokens: dict[str, Made] = field(factory=dict, init=False)
    """Those whose entry was not deleted, by id."""
    revoked_tokens: dict[str, int] = field(factory=dict, init=False)
    federations: FederationActs = field(factory=FederationActs, init=False)
    blocked: dict[str, int] = field(factory=dict, init=False)
    """Keys that are blocked, and by which act."""
    compromised: set[str] = field(factory=set, init=False)
    """Those of them that are so for good."""
    settled: list[int] = field(factory=list, init=False)
    """The acts by which the CA has decided whether there is a default entry."""
    restored: int = field(default=-1, init=False)
    """The last act of a restore: what is from before it may lack what was dropped then."""
    _scratch: sqlite3.Connection = field(init=False)
    _issues: list[tuple[str | int | None, ...]] = field(factory=list, init=False)
    _bound: dict[str, list[str]] = field(factory=lambda: defaultdict(list), init=False)
    """Tokens by the entry that they are bound to."""
    _first: datetime | None = field(default=None, init=False)
    """When the oldest act was whose text is left."""
    _is_pruned: bool = field(default=False, init=False)
    _era: int = field(default=0, init=False)
    """How many restores there were."""
    _ended: int = field(default=0, init=False)
    """How many certificates were revoked by an act."""
    _horizon: datetime = field(default=_EPOCH, init=False)
    """What expired before this may have been pruned."""
    _kept: timedelta | None = field(default=None, init=False)
    """For how long what has expired is kept, by the last start of the CA."""

    def __attrs_post_init__(self) -> None:
        self._scratch = sqlite3.connect("", isolation_level=None)
        self._scratch.executescript(_SCRATCH)
        self._scratch.execute("BEGIN")

    def close(self) -> None:
        """Give back the scratch file."""
        self._scratch.close()

    def take(self, row: Row) -> None:
        """One entry of the log, in order. One that cannot be read tells nothing; who examines the log finds it."""
        if row.entry is None:
            self._is_pruned = True
            return
        try:
            entry = Entry.parse(row.entry)
        except BadEntry:
            return
        if self._first is None:
            self._first = entry.at
            self._is_pruned = self._is_pruned or row.position > 0
        self.federations.take(row.position, entry)
        match entry.act:
            case Act.ISSUE | Act.RENEW:
                self._issued(row.position, entry)
            case Act.REVOKE | Act.WRITE_OFF:
                self._revoked(row.position, entry)
            case Act.ADMINISTER:
                self._administered(row.position, entry)
            case Act.START:
                self.pruned_until(entry.at)
                self._kept = _duration(entry.facts.get("keep_expired"))
            case Act.RESTORE:
                self.restored = row.position
                self._era += 1
                serials = map(_serial, entry.facts.get("carried_over", "").split())
                self._many("carried_over", [(serial,) for serial in serials if serial is not None])

    def _issued(self, position: int, entry: Entry) -> None:
        facts, token, serial = entry.facts, None, _serial(entry.object)
        if serial is None:
            return
        if entry.actor.startswith("token:"):
            token = entry.actor.removeprefix("token:")
        self._issues.append(
            (
                serial,
                position,
                _microseconds(entry.at),
                facts.get("spiffe_id"),
                facts.get("entry"),
                facts.get("tbs"),
                facts.get("expires_at"),
                token,
                facts.get("issuer"),
                entry.actor,
                facts.get("claim"),
            )
        )
        if "uses" in facts and "claim" in facts:
            self._many("used", [(facts["claim"], serial, position, facts.get("until"))])
        if len(self._issues) >= _BATCH:
            self._flush()

    def _revoked(self, position: int, entry: Entry) -> None:
        serial = _serial(entry.object)
        if serial is None:
            return
        reason = entry.facts.get("reason", "unspecified")
        # The first revocation is the one that counts.
        row = (serial, position, _microseconds(entry.at), reason, self._era, self._ended)
        self._ended += self._many("revoked", [row])
        if reason == str(Reason.KEY_COMPROMISE) and "key" in entry.facts:
            self.blocked.setdefault(entry.facts["key"], position)
            self.compromised.add(entry.facts["key"])
        if entry.act is Act.WRITE_OFF:
            self._many("written_off", [(serial,)])

    def _administered(self, position: int, entry: Entry) -> None:
        kind, _, name = entry.object.partition(" ")
        made = Made(position, entry.facts)
        if entry.object == _DEFAULT and entry.actor == "self":
            # The CA decides that once in the life of a record; made to forget it, it would make the entry again.
            self.settled.append(position)
        match kind, entry.facts.get("did"):
            case "entry", "create-entry":
                self.entries[name] = made
            case "entry", "delete-entry":
                self.entries.pop(name, None)
                self.deleted[name] = position
                for token in self._bound.pop(name, ()):
                    self.tokens.pop(token, None)
            case "token", "create-token":
                self.tokens[name] = made
                self._bound[entry.facts.get("entry", "")].append(name)
                if "selectors" in entry.facts:
                    self.entries[entry.facts.get("entry", "")] = made
            case "token", "revoke-token":
                self.revoked_tokens.setdefault(name, position)
            case "key", "block-key":
                self.blocked.setdefault(name, position)
            case "key", "unblock-key":
                self.blocked.pop(name, None)
            case "claim", "release-claim":
                self._scratch.execute("DELETE FROM used WHERE claim = ?", (name,))

    def pruned_until(self, end: datetime) -> None:
        """In one life of the CA, all that had expired for so long at its end may have been pruned."""
        self._horizon = max(self._horizon, end if self._kept is None else end - self._kept)

    def _many(self, table: str, rows: list[tuple[str | int | None, ...]]) -> int:
        """How many of the rows are new."""
        if not rows:
            return 0
        marks = ", ".join("?" * len(rows[0]))
        statement = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608
        return self._scratch.executemany(statement, rows).rowcount

    def _flush(self) -> None:
        self._many("issued", self._issues)
        self._issues.clear()

    # What it says.

    def of(self, serial: int) -> OfCertificate:
        """Of a certificate, which is seen by that."""
        self._flush()
        text = f"{serial:040x}"
        self._scratch.execute("INSERT OR IGNORE INTO seen VALUES (?)", (text,))
        row = self._scratch.execute(_OF_ONE, (text,)).fetchone()
        issued, issued_at, actor, spiffe_id, entry, tbs, expires_at, issuer, claim = row[:9]
        ended, at, reason, era, place, written_off, carried, told = row[9:]
        return OfCertificate(
            issued,
            None if issued_at is None else _of_microseconds(issued_at),
            actor,
            *(spiffe_id, entry, tbs, expires_at, issuer, claim, ended),
            None if at is None else _of_microseconds(at),
            reason,
            None if place is None else (era, place),
            written_off is not None,
            carried is not None,
            told,
        )

    def unseen(self) -> Iterator[Unseen]:
        """Certificates of which nobody has asked."""
        self._flush()
        for serial, position, at, expires_at in self._scratch.execute(_UNSEEN):
            # Its end is past its issue: what was issued late enough cannot have been pruned.
            end = time_of(expires_at) or _of_microseconds(at)
            yield Unseen(int(serial, 16), position, self.is_over(end))

    def used(self) -> Iterator[Use]:
        """Claims that are used up by the log: one that was released since is not among them."""
        for claim, serial, position, until in self._scratch.execute(_USED).fetchall():
            yield Use(claim, int(serial, 16), position, until)

    def bought_with(self, token: str) -> tuple[int, int] | None:
        """Serial and act of what was bought with a token and not written off."""
        self._flush()
        found = self._scratch.execute(_SPENT, (token,)).fetchone()
        return None if found is None else (int(found[0], 16), found[1])

    def tell(self, serial: int, issuer: str) -> None:
        """Endpoints are told that this one is revoked."""
        self._many("told", [(f"{serial:040x}", issuer)])

    def is_over(self, end: datetime) -> bool:
        """Whether what ended then may have been pruned."""
        return end < self._horizon

    def may_be_untold(self, at: datetime | None) -> bool:
        """Whether the act of that time may be pruned."""
        return self._is_pruned and (at is None or self._first is None or at <= self._first + SLACK)


def time_of(text: str | None) -> datetime | None:
    """A time that an act tells; None for none."""
    try:
        return None if text is None else parse_rfc3339(text)
    except PkiError:
        return None


def _serial(text: str) -> str | None:
    """As the scratch tables have it; None for what is none."""
    try:
        return f"{parse_serial(text):040x}"
    except Malformed:
        return None


def _duration(text: str | None) -> timedelta | None:
    try:
        return None if text is None else parse_duration(text)
    except PkiError:
        return None


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _of_microseconds(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)
