"""What a monitor makes of a part of a log: rows for its index, and alerts; pure, and made for millions of entries."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from attrs import frozen

from pki.errors import Malformed, PkiError
from pki.tlog.merkle import GrowingTree
from twisted_mesh.monitor.alert import Alert, AlertKind
from twisted_mesh.monitor.certificate_facts import (
    CertificateFacts,
    facts_of,
    serial_bytes,
    tbs_of,
)
from twisted_mesh.monitor.index import Row, Step
from twisted_mesh.monitor.name_pattern import ADDRESS, indexed_host, indexed_uri
from twisted_mesh.monitor.tile_scan import Scanned, scan
from twisted_mesh.monitor.watch_list import WatchList, certificate_told

#: Alerts of one kind that one part of a log raises one by one; of more it is said how many.
MOST_OF_A_KIND = 50
#: Milliseconds: what SQLite can keep of the 64 bits that a log has for a time.
LATEST = 2**63 - 1
#: An index of the issuer's key where nobody knows it.
UNKNOWN = bytes(32)


@frozen
class Part:
    """Data tiles one after the other, the first of which begins at ``first``."""

    first: int
    tiles: Sequence[bytes]
    skip: int
    """Entries of the first tile that were read before."""
    end: int
    """The position after the last entry that is wanted."""

    def entries(self) -> list[Scanned]:
        """Raises :class:`Malformed`."""
        found: list[Scanned] = []
        first, skip = self.first, self.skip
        wanted = self.end - self.first - self.skip
        for tile in self.tiles:
            found += scan(tile, first, skip)
            first, skip = first + 256, 0
        if len(found) < wanted:
            raise Malformed(
                f"the entries from {self.first + self.skip} on are {len(found)}, and {wanted} are in the log"
            )
        return found[:wanted]


def unknown_issuers(entries: Iterable[Scanned], known: Mapping[bytes, bytes]) -> set[bytes]:
    """Fingerprints of issuers of certificates whose keys have to be looked up first."""
    return {
        entry.issuer_key
        for entry in entries
        if not entry.is_precertificate and entry.issuer_key and entry.issuer_key not in known
    }


@frozen
class EntryReader:
    """Reads the entries of one log."""

    log: str
    """Its origin."""
    watch: WatchList
    issuers: Mapping[bytes, bytes]
    """By the fingerprint of an issuer, the SHA-256 of its key."""

    def step(
        self, entries: Sequence[Scanned], start: int, tree: GrowingTree, now: datetime
    ) -> Step:
        """What is to be written of ``entries``, the first of which is at ``start``; ``tree`` grows by all of them."""
        rows: list[Row] = []
        alerts = _Bounded(self.log, now)
        judge = self.watch.judge
        tree.add_all([entry.leaf_hash for entry in entries])
        for position, (timestamp, _, named, is_precertificate, body) in enumerate(entries, start):
            issuer = named if is_precertificate else self.issuers.get(named, UNKNOWN)
            try:
                facts = facts_of(body if is_precertificate else tbs_of(body))
            except PkiError as error:
                alerts.add(_unreadable(error, self.log, position, now))
                continue
            rows.append(
                (
                    position,
                    min(timestamp, LATEST),
                    is_precertificate,
                    issuer,
                    serial_bytes(facts.serial),
                    facts.key,
                    facts.not_before,
                    facts.not_after,
                    _indexed(facts),
                )
            )
            for kind, detail in judge(facts, issuer):
                told = certificate_told(facts, issuer, position)
                alerts.add(Alert.of(kind, now, detail, self.log, **told))
        return Step(tree, rows, list(alerts.all(start, start + len(entries))))


def _indexed(facts: CertificateFacts) -> tuple[str, ...]:
    uris = facts.uris
    if len(uris) == 1 and not facts.dns_names and not facts.ip_addresses:
        names: tuple[str, ...] = (indexed_uri(uris[0]),)
    else:
        names = (
            *map(indexed_uri, uris),
            *map(indexed_host, facts.dns_names),
            *(ADDRESS + address for address in facts.ip_addresses),
        )
    # A line in the index is one name.
    return tuple([name.replace("\n", "\\n") for name in names])


def _unreadable(error: PkiError, log: str, position: int, now: datetime) -> Alert:
    return Alert.of(
        AlertKind.UNREADABLE,
        now,
        f"the entry {position} is a certificate that this monitor cannot read ({error}): look at it with pki-inspect "
        "show; what it names is not known here",
        log,
        position=position,
    )


class _Bounded:
    """Alerts of one part, so many of each kind."""

    def __init__(self, log: str, now: datetime) -> None:
        self._log, self._now = log, now
        self._alerts: list[Alert] = []
        self._counts: dict[AlertKind, int] = {}

    def add(self, alert: Alert) -> None:
        count = self._counts[alert.kind] = self._counts.get(alert.kind, 0) + 1
        if count <= MOST_OF_A_KIND:
            self._alerts.append(alert)

    def all(self, start: int, end: int) -> Iterator[Alert]:
        yield from self._alerts
        for kind, count in self._counts.items():
            if count > MOST_OF_A_KIND:
                yield Alert.of(
                    AlertKind.MORE,
                    self._now,
                    f"{count - MOST_OF_A_KIND:,} more alerts of the kind {kind} are about the entries from {start} to "
                    f"{end - 1}: mesh-ctl ct search lists what is in the log",
                    self._log,
                    of=str(kind),
                    count=count - MOST_OF_A_KIND,
                )
