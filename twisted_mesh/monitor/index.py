"""The index: how far each log was read, whose certificates are in it, and which alerts were raised meanwhile.

A log's place, what was found on the way there and the alerts about it are written in one transaction: after a
crash nothing of it is missing, and nothing is read twice.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from attrs import define, evolve, frozen

from pki.tlog.merkle import GrowingTree
from twisted_mesh.monitor.alert import Alert, AlertKind
from twisted_mesh.monitor.database import Database

_HASH = 32
#: Alerts that nobody has been told of are kept up to this number, the newest.
MOST_ALERTS = 10_000
#: What is forgotten at a time.
_AT_A_TIME = 20_000

#: Values of ``sightings.recorded``.
OPEN, ON_RECORD, NOT_ON_RECORD, NOT_COMPARED = range(4)

#: A sighting as it is written: position, time in ms, whether it is a precertificate, the issuer's key, serial, key,
#: not before, not after, names as the index has them.
Row = tuple[int, int, bool, bytes, bytes, bytes, int, int, tuple[str, ...]]
#: Between two names of one certificate.
_NEXT = "\n"


@frozen
class Place:
    """How far a log was read."""

    number: int
    log_id: bytes
    origin: str
    size: int
    peaks: tuple[bytes, ...]
    head: str
    """The newest signed head that was verified, as the log has signed it; empty before the first."""
    first_at: int | None
    """Milliseconds: when its first entry was made; None while there is none."""

    @property
    def tree(self) -> GrowingTree:
        """The tree over what was read."""
        return GrowingTree.resumed(self.size, self.peaks)


@frozen
class Step:
    """What is written of one part of a log, together."""

    tree: GrowingTree
    rows: Sequence[Row]
    alerts: Sequence[Alert]


@define(eq=False, repr=False)
class Index:
    """Used in one thread at a time."""

    database: Database
    compares: bool = False
    """Whether what is found is to be compared with a CA's record."""

    # Places.

    def place(self, log_id: bytes, origin: str) -> Place:
        """Of a log; a new one is at its beginning."""
        for row in self.database.rows(f"{_PLACES} WHERE log_id = ?", log_id):
            return _place(row)
        with self.database.changing():
            self.database.do(
                "INSERT INTO logs (log_id, origin, size, peaks, head) VALUES (?, ?, 0, x'', '')",
                log_id,
                origin,
            )
        return self.place(log_id, origin)

    def places(self) -> list[Place]:
        """Of all logs that were ever followed."""
        return [_place(row) for row in self.database.rows(f"{_PLACES} ORDER BY number")]

    def seen(self, place: Place, head: str) -> Place:
        """The log has signed ``head``, which extends what it signed before."""
        with self.database.changing():
            self.database.do("UPDATE logs SET head = ? WHERE number = ?", head, place.number)
        return evolve(place, head=head)

    def go_on(self, place: Place, step: Step) -> Place:
        """Write what was read after ``place``; the place after that."""
        tree, rows = step.tree, step.rows
        first_at = rows[0][1] if place.first_at is None and rows else place.first_at
        peaks = tree.peaks
        with self.database.changing():
            self._write(place.number, rows)
            self.database.do(
                "UPDATE logs SET size = ?, peaks = ?, first_at = ? WHERE number = ?",
                tree.size,
                b"".join(peaks),
                first_at,
                place.number,
            )
            self.add_within(step.alerts)
        return evolve(place, size=tree.size, peaks=peaks, first_at=first_at)

    def _write(self, log: int, rows: Sequence[Row]) -> None:
        recorded = OPEN if self.compares else NOT_COMPARED
        numbers = {key: self._issuer(key) for key in {row[3] for row in rows}}
        self.database.do_many(
            "INSERT INTO sightings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    log,
                    at,
                    made,
                    kind,
                    numbers[key],
                    serial,
                    own,
                    begins,
                    ends,
                    recorded,
                    _NEXT.join(names),
                )
                for at, made, kind, key, serial, own, begins, ends, names in rows
            ],
        )
        # In the order of the index, which is then written from one end to the other.
        named = sorted([(name, log, row[0]) for row in rows for name in row[8]])
        self.database.do_many("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", named)

    def _issuer(self, key: bytes) -> int:
        found = self.database.rows("SELECT number FROM issuers WHERE key = ?", key)
        if found:
            return int(found[0][0])
        made = self.database.do("INSERT INTO issuers (key) VALUES (?)", key).lastrowid
        return int(made or 0)

    # Alerts.

    def raise_alerts(self, alerts: Sequence[Alert]) -> None:
        """Keep them until everybody was told."""
        if alerts:
            with self.database.changing():
                self.add_within(alerts)

    def add_within(self, alerts: Sequence[Alert]) -> None:
        """The same within a change of the database."""
        self.database.do_many(
            "INSERT INTO alerts (at, body) VALUES (?, ?)",
            [(int(alert.at.timestamp()), alert.to_bytes()) for alert in alerts],
        )
        self.database.do_many(
            "INSERT INTO counts VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET number = number + 1",
            [(str(alert.kind),) for alert in alerts],
        )

    def counts(self) -> dict[str, int]:
        """How many alerts of each kind there ever were."""
        return {str(kind): 0 for kind in AlertKind} | dict(
            self.database.rows("SELECT kind, number FROM counts")
        )

    def begins(self, alert: Alert) -> bool:
        """Something stands as ``alert`` says from now on; False where that was told before."""
        with self.database.changing():
            changed = self.database.do(
                "INSERT OR IGNORE INTO standing VALUES (?, ?, ?)",
                alert.log,
                str(alert.kind),
                int(alert.at.timestamp()),
            ).rowcount
            if changed:
                self.add_within([alert])
        return bool(changed)

    def ends(self, log: str, kind: AlertKind) -> bool:
        """It does so no more; whether it did."""
        if not self.database.rows(
            "SELECT 1 FROM standing WHERE log = ? AND kind = ?", log, str(kind)
        ):
            return False
        with self.database.changing():
            self.database.do("DELETE FROM standing WHERE log = ? AND kind = ?", log, str(kind))
        return True

    def standing(self) -> list[tuple[str, str]]:
        """Log and kind of whatever began and is not over."""
        return [(log, kind) for log, kind in self.database.rows("SELECT log, kind FROM standing")]

    def untold(self, sink: str, limit: int) -> list[tuple[int, Alert]]:
        """What ``sink`` has not told, the oldest first, with its number. One that is new begins with what comes."""
        last = self.database.rows("SELECT number FROM told WHERE sink = ?", sink)
        if not last:
            newest = self.newest_alert
            self.told(sink, newest)
            last = [(newest,)]
        rows = self.database.rows(
            "SELECT number, body FROM alerts WHERE number > ? ORDER BY number LIMIT ?",
            last[0][0],
            limit,
        )
        return [(number, Alert.parse(body)) for number, body in rows]

    @property
    def newest_alert(self) -> int:
        """The number of the last one that was raised."""
        rows = self.database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'alerts'")
        return int(rows[0][0]) if rows else 0

    def told(self, sink: str, number: int) -> None:
        """``sink`` has told all up to that one."""
        with self.database.changing():
            self.database.do("INSERT OR REPLACE INTO told VALUES (?, ?)", sink, number)

    def forget_alerts(self) -> int:
        """Keep the newest :data:`MOST_ALERTS`; how many are gone."""
        with self.database.changing():
            return self.database.do(
                "DELETE FROM alerts WHERE number <= ?", self.newest_alert - MOST_ALERTS
            ).rowcount

    def forget_sightings(self, before: datetime) -> int:
        """Forget some certificates that were logged and ended before that, and are compared; how many."""
        end = int(before.timestamp())
        with self.database.changing():
            rows = self.database.rows(
                "SELECT log, position, names FROM sightings WHERE at < ? AND not_after < ? AND recorded != 0 "
                "ORDER BY at LIMIT ?",
                end * 1000,
                end,
                _AT_A_TIME,
            )
            self.database.do_many(
                "DELETE FROM names WHERE name = ? AND log = ? AND position = ?",
                sorted((name, log, at) for log, at, names in rows for name in names.split(_NEXT)),
            )
            self.database.do_many(
                "DELETE FROM sightings WHERE log = ? AND position = ?",
                [(log, position) for log, position, _ in rows],
            )
        return len(rows)


_PLACES = "SELECT number, log_id, origin, size, peaks, head, first_at FROM logs"


def _place(row: tuple[int, bytes, str, int, bytes, str, int | None]) -> Place:
    number, log_id, origin, size, peaks, head, first_at = row
    hashes = tuple(peaks[at : at + _HASH] for at in range(0, len(peaks), _HASH))
    return Place(number, log_id, origin, size, hashes, head, first_at)


def moment(seconds: float) -> datetime:
    """A time of the index; far away ones are cut to the years that there are."""
    return datetime.fromtimestamp(min(max(seconds, -62_135_596_800), 253_402_300_799), UTC)
