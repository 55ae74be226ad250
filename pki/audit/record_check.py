"""A CA's record against its audit log: who was un-revoked, let in or un-spent where only the tables were changed.

The log says what was done, in a tree that is signed; certificates, entries and tokens in their tables are
believed by nothing but themselves. What the log cannot tell any more, since it was pruned, is not judged.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from attrs import define, field, frozen

from pki.audit.auditor import Row
from pki.audit.log import Act, BadEntry, Entry
from pki.codes import Code
from pki.errors import Malformed, PkiError, printable
from pki.serial import parse_serial, serial_hex
from pki.validity import parse_duration, parse_rfc3339, rfc3339

#: By how much the time of an act and that in its row may differ: the two are taken one after the other.
_SLACK = timedelta(minutes=1)
_DEFAULT = "entry default"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What an entry says, as the act of its making tells it.
_MEMBERS = frozenset(
    ("selectors", "spiffe_id", "dns_names", "ip_addresses", "ttl", "max_ttl", "keys", "comment")
)
#: So many digits of an issuer's key id are in the act of an issue.
ISSUER_DIGITS = 16
#: So many acts are written to the scratch tables at once.
_BATCH = 1000
_SCRATCH = """
CREATE TABLE issued (serial TEXT PRIMARY KEY, position INTEGER, at INTEGER, spiffe_id TEXT, entry TEXT,
    tbs TEXT, expires_at TEXT, token TEXT, issuer TEXT) WITHOUT ROWID;
CREATE TABLE revoked (serial TEXT PRIMARY KEY, position INTEGER, at INTEGER, reason TEXT) WITHOUT ROWID;
CREATE TABLE written_off (serial TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE carried_over (serial TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE told (serial TEXT PRIMARY KEY, issuer TEXT) WITHOUT ROWID;
CREATE TABLE seen (serial TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_TOLD = """
SELECT i.position, i.spiffe_id, i.entry, i.tbs, i.expires_at, i.issuer, r.position, r.at, r.reason, c.serial, t.issuer
FROM (SELECT ? AS serial) s LEFT JOIN issued i USING (serial) LEFT JOIN revoked r USING (serial)
    LEFT JOIN carried_over c USING (serial) LEFT JOIN told t USING (serial)
"""
_UNSEEN = """
SELECT serial, position, at, expires_at FROM issued WHERE serial NOT IN (SELECT serial FROM seen) ORDER BY position
"""
_SPENT = """
SELECT serial, position FROM issued WHERE token = ? AND serial NOT IN (SELECT serial FROM written_off)
ORDER BY position LIMIT 1
"""


@frozen
class RecordedCertificate:
    """A row of the certificates' table."""

    serial: int
    spiffe_id: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    reason: str | None = None
    entry: str | None = None
    """The registration entry that bought it."""
    tbs: str | None = None
    """SHA-256 in hex of what is signed in the certificate that is kept; None where that is not looked at."""
    issuer: str | None = None
    """:func:`pki.keys.key_id` of its CA; None where that is not looked at."""


@frozen
class RecordedEntry:
    """A registration entry that is kept in the record."""

    id: str
    facts: Mapping[str, str]
    """All that it says but its id, lists joined by a comma and a space, as the act of its making has them."""
    created_at: datetime | None = None


@frozen
class RecordedToken:
    """A row of the join tokens' table."""

    id: str
    entry: str
    expires_at: datetime
    created_at: datetime
    key: str | None = None
    revoked_at: datetime | None = None
    spent_at: datetime | None = None


@frozen
class Difference:
    """One thing that the record and the log say differently."""

    code: Code
    kind: str
    """``certificate``, ``entry`` or ``token``."""
    name: str
    """Its serial or id."""
    detail: str
    """What it is, and what the log says."""
    position: int | None = None
    """The act that says so; None where none does."""


class _Made(NamedTuple):
    """What the log says of an entry or a token that is there."""

    position: int
    at: datetime
    facts: Mapping[str, str]


@define
class RecordCheck:
    """Reads a whole log, then rows of the tables in any order.

    :meth:`act` for each entry of the log, then :meth:`certificate`, :meth:`entry` and :meth:`token` for each
    row, then :meth:`missing`. What grows with the certificates is in a scratch file, not in memory.
    """

    now: datetime
    judged: int = field(default=0, init=False)
    unjudged: int = field(default=0, init=False)
    """Rows of which the log says nothing any more, and acts whose rows may have been pruned."""
    _scratch: sqlite3.Connection = field(init=False)
    _issues: list[tuple[str | int | None, ...]] = field(factory=list, init=False)
    _entries: dict[str, _Made] = field(factory=dict, init=False)
    _gone: dict[str, int] = field(factory=dict, init=False)
    """Entries that were deleted, and by which act."""
    _tokens: dict[str, _Made] = field(factory=dict, init=False)
    _settled: list[int] = field(factory=list, init=False)
    """The acts by which the CA has decided whether there is a default entry."""
    _bound: dict[str, list[str]] = field(factory=lambda: defaultdict(list), init=False)
    """Tokens by the entry that they are bound to."""
    _revoked_tokens: dict[str, int] = field(factory=dict, init=False)
    _entries_seen: set[str] = field(factory=set, init=False)
    _tokens_seen: set[str] = field(factory=set, init=False)
    _first: datetime | None = field(default=None, init=False)
    """When the oldest act was whose text is left."""
    _is_pruned: bool = field(default=False, init=False)
    _restored: int = field(default=-1, init=False)
    """The last act of a restore: what is from before it may lack what was dropped then."""
    _horizon: datetime = field(default=_EPOCH, init=False)
    """What expired before this may have been pruned."""
    _knows_feed: bool = field(default=False, init=False)
    _kept: timedelta | None = field(default=timedelta(0), init=False)

    def __attrs_post_init__(self) -> None:
        self._scratch = sqlite3.connect("", isolation_level=None)
        self._scratch.executescript(_SCRATCH)
        self._scratch.execute("BEGIN")

    def close(self) -> None:
        """Give back the scratch file."""
        self._scratch.close()

    # The log.

    def act(self, row: Row) -> None:
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
        match entry.act:
            case Act.ISSUE | Act.RENEW:
                self._issued(row.position, entry)
            case Act.REVOKE | Act.WRITE_OFF:
                self._revoked(row.position, entry)
            case Act.ADMINISTER:
                self._administered(row.position, entry)
            case Act.START:
                self._pruned_until(entry.at)
                self._kept = _duration(entry.facts.get("keep_expired"))
            case Act.RESTORE:
                self._restored = row.position
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
            )
        )
        if len(self._issues) >= _BATCH:
            self._flush()

    def _revoked(self, position: int, entry: Entry) -> None:
        serial = _serial(entry.object)
        if serial is None:
            return
        reason = entry.facts.get("reason", "unspecified")
        # The first revocation is the one that counts.
        self._many("revoked", [(serial, position, _microseconds(entry.at), reason)])
        if entry.act is Act.WRITE_OFF:
            self._many("written_off", [(serial,)])

    def _administered(self, position: int, entry: Entry) -> None:
        kind, _, name = entry.object.partition(" ")
        made = _Made(position, entry.at, entry.facts)
        if entry.object == _DEFAULT and entry.actor == "self":
            # The CA decides that once in the life of a record; made to forget it, it would make the entry again.
            self._settled.append(position)
        match kind, entry.facts.get("did"):
            case "entry", "create-entry":
                self._entries[name] = made
            case "entry", "delete-entry":
                self._entries.pop(name, None)
                self._gone[name] = position
                for token in self._bound.pop(name, ()):
                    self._tokens.pop(token, None)
            case "token", "create-token":
                self._tokens[name] = made
                self._bound[entry.facts.get("entry", "")].append(name)
                if "selectors" in entry.facts:
                    self._entries[entry.facts.get("entry", "")] = made
            case "token", "revoke-token":
                self._revoked_tokens.setdefault(name, position)

    def _pruned_until(self, end: datetime) -> None:
        """In one life of the CA, all that had expired for so long at its end may have been pruned."""
        self._horizon = max(self._horizon, end if self._kept is None else end - self._kept)

    def _many(self, table: str, rows: list[tuple[str | int | None, ...]]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self._scratch.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608

    def _flush(self) -> None:
        self._many("issued", self._issues)
        self._issues.clear()

    # The tables.

    def revocation(self, serial: int, issuer: str) -> None:
        """One that endpoints are told of; before the certificates, with :meth:`knows_feed` after the last."""
        self._many("told", [(f"{serial:040x}", issuer)])

    def knows_feed(self) -> None:
        """Whatever endpoints are told of was shown, be it nothing: what is revoked must be among it."""
        self._knows_feed = True

    def certificate(self, row: RecordedCertificate) -> Iterator[Difference]:
        """What the log says differently of a certificate."""
        self._flush()
        serial = f"{row.serial:040x}"
        self._scratch.execute("INSERT OR IGNORE INTO seen VALUES (?)", (serial,))
        (position, spiffe_id, entry, tbs, expires_at, issuer, *of_end, carried, feed) = (
            self._scratch.execute(_TOLD, (serial,)).fetchone()
        )
        ended, ended_at, reason = of_end

        def differs(code: Code, detail: str, act: int | None) -> Difference:
            return Difference(
                code, "certificate", serial_hex(row.serial), f"{_named(row)} {detail}", act
            )

        if position is None and carried is None:
            if self._may_be_untold(row.issued_at):
                self.unjudged += 1
            else:
                yield differs(
                    Code.RECORD_UNKNOWN,
                    "is on record, and the log does not say that it was issued",
                    None,
                )
        else:
            self.judged += 1
        if position is not None:
            told = {
                "SPIFFE ID": (row.spiffe_id, spiffe_id),
                "entry": (row.entry, entry),
                "contents": (row.tbs, tbs if row.tbs else None),
                "end": (rfc3339(row.expires_at), expires_at or rfc3339(row.expires_at)),
                "issuer": (_digits(row.issuer), issuer if row.issuer else None),
            }
            if issuer is None:  # the act of an earlier version
                del told["issuer"]
            for what, (ours, theirs) in told.items():
                if ours != theirs:
                    yield differs(
                        Code.RECORD_CHANGED,
                        f"is on record with the {what} {_said(ours)}, and entry {position} of the log says "
                        f"{_said(theirs)}",
                        position,
                    )
        if ended is not None:
            at = _EPOCH + timedelta(microseconds=ended_at)
            if row.revoked_at is None:
                yield differs(
                    Code.RECORD_UNREVOKED,
                    f"is not revoked by the record, and was at {rfc3339(at)} by entry {ended} of the log",
                    ended,
                )
            elif abs(row.revoked_at - at) > _SLACK or row.reason != reason:
                yield differs(
                    Code.RECORD_CHANGED,
                    f"was revoked at {rfc3339(row.revoked_at)} ({row.reason}) by the record, and at {rfc3339(at)} "
                    f"({reason}) by entry {ended} of the log",
                    ended,
                )
        elif carried is not None and row.revoked_at is None:
            yield differs(
                Code.RECORD_UNREVOKED,
                "is not revoked by the record, and was when a backup was restored, by the log",
                None,
            )
        elif (
            row.revoked_at is not None
            and carried is None
            and not self._may_be_untold(row.revoked_at)
        ):
            yield differs(
                Code.RECORD_REVOKED, "is revoked by the record, and the log does not say so", None
            )

        is_in_force = row.revoked_at is not None and row.expires_at >= self.now
        if self._knows_feed and is_in_force and (feed is None or (row.issuer or feed) != feed):
            detail = "is revoked, and the record does not tell endpoints so"
            yield differs(Code.RECORD_UNREVOKED, detail, ended)

    def entry(self, row: RecordedEntry) -> Iterator[Difference]:
        """What the log says differently of a registration entry."""
        self._entries_seen.add(row.id)
        made, name = self._entries.get(row.id), printable(row.id, 60)
        if made is not None:
            self.judged += 1
            told = {fact: said for fact, said in made.facts.items() if fact in _MEMBERS}
            for fact in sorted(told.keys() | row.facts.keys()):
                if told.get(fact) != row.facts.get(fact):
                    yield Difference(
                        Code.RECORD_CHANGED,
                        "entry",
                        row.id,
                        f"the entry {name} is on record with the {fact} {_said(row.facts.get(fact))}, and entry "
                        f"{made.position} of the log says {_said(told.get(fact))}",
                        made.position,
                    )
            return
        deleted = self._gone.get(row.id)
        is_carried = row.id == "default" and self._restored >= 0
        if deleted is None and (is_carried or self._may_be_untold(row.created_at)):
            self.unjudged += 1
            return
        said = "the log does not say that it was made"
        if deleted is not None:
            said = f"entry {deleted} of the log says that it was deleted"
        facts = row.facts
        yield Difference(
            Code.RECORD_UNKNOWN,
            "entry",
            row.id,
            f"the entry {name} is on record for {_said(facts.get('spiffe_id'))} with "
            f"{_said(facts.get('selectors'))}, and {said}",
            deleted,
        )

    def token(self, row: RecordedToken) -> Iterator[Difference]:
        """What the log says differently of a join token."""
        self._flush()
        self._tokens_seen.add(row.id)
        made = self._tokens.get(row.id)

        def differs(code: Code, detail: str, act: int | None) -> Difference:
            name = printable(row.id, 60)
            return Difference(code, "token", row.id, f"the token {name} {detail}", act)

        if made is None:
            if self._may_be_untold(row.created_at):
                self.unjudged += 1
            else:
                yield differs(
                    Code.RECORD_UNKNOWN,
                    "is on record, and the log does not say that it was made",
                    None,
                )
        else:
            self.judged += 1
            told = {
                "entry": (row.entry, made.facts.get("entry")),
                "key": (row.key, made.facts.get("key")),
                "end": (rfc3339(row.expires_at), made.facts.get("expires_at")),
            }
            for what, (ours, theirs) in told.items():
                if ours != theirs:
                    yield differs(
                        Code.RECORD_CHANGED,
                        f"is on record with the {what} {_said(ours)}, and entry {made.position} of the log says "
                        f"{_said(theirs)}",
                        made.position,
                    )
        revoked = self._revoked_tokens.get(row.id)
        if revoked is not None and row.revoked_at is None:
            yield differs(
                Code.RECORD_UNREVOKED,
                f"is not revoked by the record, and was by entry {revoked} of the log",
                revoked,
            )
        bought = self._scratch.execute(_SPENT, (row.id,)).fetchone()
        if bought is not None and row.spent_at is None:
            serial, position = bought
            yield differs(
                Code.RECORD_UNSPENT,
                f"can be spent by the record, and has bought {serial_hex(int(serial, 16))} by entry {position} of "
                "the log",
                position,
            )

    def missing(self) -> Iterator[Difference]:
        """What the log tells of and no row was shown of. Last."""
        self._flush()
        self._pruned_until(self.now)
        for position in self._settled[1:]:
            yield Difference(
                Code.RECORD_CHANGED,
                "entry",
                "default",
                f"the CA decided anew by entry {position} of the log whether there is a default entry, as it does in a "
                f"new record only; it had by entry {self._settled[0]}",
                position,
            )
        for serial, position, at, expires_at in self._scratch.execute(_UNSEEN):
            # Its end is past its issue: without it, what was issued late enough cannot have been pruned.
            end = _time(expires_at) or _EPOCH + timedelta(microseconds=at)
            if end < self._horizon:
                self.unjudged += 1
                continue
            name = serial_hex(int(serial, 16))
            yield Difference(
                Code.RECORD_MISSING,
                "certificate",
                name,
                f"the certificate {name} is not on record, and entry {position} of the log says that it was issued",
                position,
            )
        for kind, told, seen in (
            ("entry", self._entries, self._entries_seen),
            ("token", self._tokens, self._tokens_seen),
        ):
            for name, made in told.items():
                if name in seen:
                    continue
                if made.position < self._restored or self._is_over(kind, name, made):
                    self.unjudged += 1
                    continue
                yield Difference(
                    Code.RECORD_MISSING,
                    kind,
                    name,
                    f"the {kind} {printable(name, 60)} is not on record, and entry {made.position} of the log says "
                    "that it was made",
                    made.position,
                )

    def _is_over(self, kind: str, name: str, made: _Made) -> bool:
        """Whether it may have been pruned: with the token that it was made for, or once it had expired."""
        if kind == "entry":
            return made.facts.get("selectors") == f"token:{name}"
        end = _time(made.facts.get("expires_at"))
        return end is None or end < self._horizon

    def _may_be_untold(self, at: datetime | None) -> bool:
        """Whether the act of that time may be pruned."""
        return self._is_pruned and (at is None or self._first is None or at <= self._first + _SLACK)


def differences(
    acts: Iterable[Row],
    certificates: Iterable[RecordedCertificate],
    entries: Iterable[RecordedEntry],
    tokens: Iterable[RecordedToken],
    now: datetime,
) -> Iterator[Difference]:
    """Everything that the tables and the log of one and the same moment say differently."""
    check = RecordCheck(now)
    try:
        for act in acts:
            check.act(act)
        for certificate in certificates:
            yield from check.certificate(certificate)
        for entry in entries:
            yield from check.entry(entry)
        for token in tokens:
            yield from check.token(token)
        yield from check.missing()
    finally:
        check.close()


def _named(row: RecordedCertificate) -> str:
    return f"the certificate {serial_hex(row.serial)} for {printable(row.spiffe_id, 200)}"


def _digits(issuer: str | None) -> str | None:
    return None if issuer is None else issuer[:ISSUER_DIGITS]


def _said(value: str | None) -> str:
    return "none" if value is None else printable(value, 200)


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


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_rfc3339(text)
    except PkiError:
        return None


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
