"""The logs held against the CA's record: what a log has the CA must know, and what it issues a log must have."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, field, frozen

from pki.errors import PkiError
from pki.serial import parse_serial, serial_hex
from pki.spiffe import SpiffeId
from pki.validity import parse_rfc3339, rfc3339, spoken_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import CertificateDetails, CertificatePage, CertificateRow
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.monitor.alert import Alert, AlertKind
from twisted_mesh.monitor.certificate_facts import serial_bytes, shown_serial
from twisted_mesh.monitor.index import NOT_COMPARED, NOT_ON_RECORD, ON_RECORD, Index, moment
from twisted_mesh.monitor.name_pattern import shown_name
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer

_log = logger("ct")
#: How far behind what was compared last is asked for again: clocks differ, and what is issued is recorded later.
_OVERLAP = timedelta(minutes=15)
#: A certificate on record that is in no log is looked for so much longer before that is an alert.
SETTLES = timedelta(minutes=2)
#: An intent that is as old and has come to nothing is an alert, if a log has its precertificate.
UNFINISHED = timedelta(minutes=15)
#: How many certificates of a log the CA is asked about one by one in one turn.
_QUESTIONS = 500
_COMPARED = "compared-after"
_NOT_FOUND = 404
_LIMIT = 1 << 160


def is_exempt(row: CertificateRow) -> bool:
    """Whether no log has to have it: it names nobody, or nobody is to believe it any more, or it is not out yet."""
    if row.status in ("revoked", "pending"):
        return True
    try:
        return SpiffeId.parse(row.spiffe_id).path == "/mesh/ocsp-responder"
    except PkiError:
        return False


@frozen
class RecordRules:
    """How much is demanded."""

    quorum: int = 1
    """Logs that must have a certificate."""
    keeps: timedelta = timedelta(days=30)
    """How long the CA has certificates on record after their end."""
    since: datetime | None = None
    """Certificates issued before need not be in any log; None for when the first entry was made."""


@define(eq=False, repr=False)
class RecordComparison:
    """Asks one CA."""

    administration: Administration
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    """Has a coroutine of ``administration`` run to its end; on a thread, for one that blocks."""
    in_ca: Defer
    index: Index
    in_index: Defer
    now: Now
    rules: RecordRules = RecordRules()
    is_away: bool = field(default=False, init=False)

    async def turn(self, read_since: datetime | None) -> bool:
        """Compare what is new; whether the CA answered.

        ``read_since`` is the moment since when every log was read to its end; None where one was not.
        """
        try:
            await self._from_record()
            await self._from_logs()
        except PkiError as error:
            self.is_away = True
            alert = Alert.of(
                AlertKind.CA_AWAY,
                self.now(),
                f"the CA's record cannot be compared with the logs ({error}): what is issued past either is not seen",
            )
            await self.in_index(self.index.begins, alert)
            return False
        self.is_away = False
        if await self.in_index(self.index.ends, "", AlertKind.CA_AWAY):
            _log.info("That is over: {kind}", event="ct-alert-over", kind=str(AlertKind.CA_AWAY))
        if read_since is not None:
            await self.in_index(self._tell_missing, read_since)
        return True

    # From the record to the logs.

    async def _from_record(self) -> None:
        began = self.now()
        after = await self.in_index(self._after)
        if after is None:
            return  # no log has anything yet
        cursor: str | None = None
        while True:
            page: CertificatePage = await self._ask(
                self.administration.page({"issued_after": rfc3339(after)}, cursor=cursor)
            )
            await self.in_index(self._take, page.certificates)
            cursor = page.next
            if cursor is None:
                break
        await self.in_index(self._remember, began - _OVERLAP)

    def _after(self) -> datetime | None:
        rows = self.index.database.rows("SELECT value FROM meta WHERE name = ?", _COMPARED)
        if rows:
            return parse_rfc3339(rows[0][0])
        return self._since()

    def _since(self) -> datetime | None:
        """From when on what is issued must be in a log."""
        if self.rules.since is not None:
            return self.rules.since
        first = [place.first_at for place in self.index.places() if place.first_at is not None]
        return moment(min(first) / 1000) if first else None

    def _remember(self, at: datetime) -> None:
        with self.index.database.changing():
            self.index.database.do(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", _COMPARED, rfc3339(at)
            )

    def _take(self, rows: Sequence[CertificateRow]) -> None:
        """Compare a page of the record with the index, in one transaction."""
        since, now = self._since(), self.now()
        database = self.index.database
        alerts: list[Alert] = []
        with database.changing():
            for row in rows:
                found = _sightings(self.index, row)
                serial, issuer = _named(row)
                alerts += self._mark(row, found)
                if len({log for log, *_ in found}) >= self.rules.quorum:
                    database.do(
                        "DELETE FROM missing WHERE serial = ? AND issuer = ?", serial, issuer
                    )
                elif not is_exempt(row) and since and parse_rfc3339(row.issued_at) >= since:
                    database.do(
                        "INSERT OR IGNORE INTO missing VALUES (?, ?, ?, 0)",
                        serial,
                        issuer,
                        int(now.timestamp()),
                    )
            self.index.add_within(alerts)

    def _mark(self, row: CertificateRow, found: Sequence[tuple[Any, ...]]) -> list[Alert]:
        """Take note of what of that row is in the logs, and of what is another certificate than it says."""
        alerts = []
        ends = int(parse_rfc3339(row.expires_at).timestamp())
        whole: str | None = None
        for log, position, key, names, recorded, not_after in found:
            is_same = row.key in (None, key.hex()) and row.spiffe_id in names.split("\n")
            is_same = is_same and not_after == ends
            if is_same:
                # Rows have no other names: whoever was issued one under this serial was first to have it in a log.
                whole = names if whole is None else whole
                is_same = names == whole
            state = ON_RECORD if is_same else NOT_ON_RECORD
            if recorded != state:
                self.index.database.do(
                    "UPDATE sightings SET recorded = ? WHERE log = ? AND position = ?",
                    state,
                    log,
                    position,
                )
                if not is_same:
                    alerts.append(self._other(row, log, position, key, names))
        age = self.now() - parse_rfc3339(row.issued_at)
        if row.status == "pending" and found and age > UNFINISHED:
            alert = Alert.of(
                AlertKind.NO_FINAL,
                self.now(),
                f"a precertificate for {row.spiffe_id} is in the log, and {spoken_duration(age)} later the CA has no "
                "certificate of it: look whether its signer answers; mesh-ctl cert revoke ends it",
                serial=row.serial,
                spiffe_id=row.spiffe_id,
            )
            if self._is_new(alert, row.serial):
                alerts.append(alert)
        return alerts

    def _is_new(self, alert: Alert, what: str) -> bool:
        """Whether that was not told of ``what`` before."""
        return bool(
            self.index.database.do(
                "INSERT OR IGNORE INTO standing VALUES (?, ?, ?)",
                what,
                str(alert.kind),
                int(alert.at.timestamp()),
            ).rowcount
        )

    def _other(self, row: CertificateRow, log: int, position: int, key: bytes, names: str) -> Alert:
        shown = ", ".join(map(shown_name, filter(None, names.split("\n"))))
        return Alert.of(
            AlertKind.NOT_ON_RECORD,
            self.now(),
            f"the log has a certificate for {shown} with the serial {row.serial}, under which the CA has another one "
            f"on record, for {row.spiffe_id}: somebody else signs with the issuing key, or the record was changed",
            self._origin(log),
            position=position,
            serial=row.serial,
            key=key.hex(),
            names=shown,
        )

    def _origin(self, log: int) -> str:
        rows = self.index.database.rows("SELECT origin FROM logs WHERE number = ?", log)
        return str(rows[0][0]) if rows else ""

    def _tell_missing(self, read_since: datetime) -> None:
        """Raise an alert about what was looked for long enough, in logs that were read after that."""
        database = self.index.database
        # A log that was read to its end in the same second may have been read before.
        settled = min(int((self.now() - SETTLES).timestamp()), int(read_since.timestamp()) - 1)
        rows = database.rows(
            "SELECT serial, issuer, since FROM missing WHERE told = 0 AND since <= ? LIMIT 1000",
            settled,
        )
        with database.changing():
            for serial, issuer, since in rows:
                number = int.from_bytes(serial, "big", signed=True)
                found = database.rows(_OF_ONE, serial, issuer)
                if len({log for log, *_ in found}) >= self.rules.quorum:
                    database.do(
                        "DELETE FROM missing WHERE serial = ? AND issuer = ?", serial, issuer
                    )
                    continue
                database.do(
                    "UPDATE missing SET told = 1 WHERE serial = ? AND issuer = ?", serial, issuer
                )
                where = "no log has it" if not found else f"{len(found)} logs have it, and not more"
                self.index.add_within(
                    [
                        Alert.of(
                            AlertKind.NOT_IN_LOG,
                            self.now(),
                            f"the CA has issued the certificate {serial_hex(number)}, seen on record at "
                            f"{rfc3339(moment(since))}, and {where}: it was issued past the logs (--ct-away issue), or "
                            "a log has lost it; mesh-ctl cert show names it",
                            serial=serial_hex(number),
                            issuer=issuer.hex(),
                        )
                    ]
                )

    # From the logs to the record.

    async def _from_logs(self) -> None:
        rows = await self.in_index(
            self.index.database.rows,
            f"{_OPEN} LIMIT ?",
            _QUESTIONS,
        )
        for log, position, serial, issuer, key, names, not_after in rows:
            number = int.from_bytes(serial, "big", signed=True)
            row: CertificateDetails | None = None
            # About a longer one no CA can be asked (RFC 5280 section 4.1.2.2), so it is on no record.
            if 0 <= number < _LIMIT:
                try:
                    row = await self._ask(self.administration.certificate(number))
                except CaRefused as error:
                    if error.status != _NOT_FOUND:
                        raise
            told = {"names": names, "key": key, "issuer": issuer, "not_after": not_after}
            await self.in_index(self._judge, log, position, number, row, told)

    def _judge(
        self,
        log: int,
        position: int,
        serial: int,
        row: CertificateRow | None,
        told: Mapping[str, Any],
    ) -> None:
        alerts: list[Alert] = []
        with self.index.database.changing():
            if row is not None and row.issuer in (None, told["issuer"].hex()):
                # With what was there before: another of the same serial is none of the CA's.
                found = self.index.database.rows(_OF_ONE, serial_bytes(serial), told["issuer"])
                alerts = self._mark(row, found)
            else:
                is_over = moment(told["not_after"]) + self.rules.keeps < self.now()
                self.index.database.do(
                    "UPDATE sightings SET recorded = ? WHERE log = ? AND position = ?",
                    NOT_COMPARED if is_over else NOT_ON_RECORD,
                    log,
                    position,
                )
                if not is_over:
                    alerts = [self._unknown(log, position, serial, told)]
            self.index.add_within(alerts)

    def _unknown(self, log: int, position: int, serial: int, told: Mapping[str, Any]) -> Alert:
        names = ", ".join(map(shown_name, filter(None, told["names"].split("\n")))) or "nobody"
        return Alert.of(
            AlertKind.NOT_ON_RECORD,
            self.now(),
            f"the log has a certificate for {names} that the CA does not know of: whoever made it has the issuing key "
            f"{told['issuer'].hex()}, or the record was cut; revoke that issuing CA (mesh-ctl ca revoke-issuing) if it "
            "is yours",
            self._origin(log),
            position=position,
            serial=shown_serial(serial),
            issuer=told["issuer"].hex(),
            key=told["key"].hex(),
            names=names,
            not_after=rfc3339(moment(told["not_after"])),
        )

    async def _ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        return await self.in_ca(self.run, question)


_OF_ONE = (
    "SELECT s.log, s.position, s.key, s.names, s.recorded, s.not_after FROM sightings s "
    "JOIN issuers i ON i.number = s.issuer WHERE s.serial = ? AND i.key = ? ORDER BY s.at, s.log, s.position"
)
_OPEN = (
    "SELECT s.log, s.position, s.serial, i.key, s.key, s.names, s.not_after FROM sightings s "
    "JOIN issuers i ON i.number = s.issuer WHERE s.recorded = 0 ORDER BY s.log, s.position"
)


def _named(row: CertificateRow) -> tuple[bytes, bytes]:
    """Serial and issuer, as the index has them."""
    return serial_bytes(parse_serial(row.serial)), bytes.fromhex(row.issuer or "")


def _sightings(index: Index, row: CertificateRow) -> list[tuple[Any, ...]]:
    return index.database.rows(_OF_ONE, *_named(row))
