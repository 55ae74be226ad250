"""A CA's record against its audit log: who was un-revoked, let in or un-spent where only the tables were changed.

The log says what was done, in a tree that is signed; certificates, entries and tokens in their tables are
believed by nothing but themselves. What the log cannot tell any more, since it was pruned, is not judged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime

from attrs import define, field

from pki.audit.acts import SLACK, Acts, Made, OfCertificate, time_of
from pki.audit.auditor import Row
from pki.audit.block_check import BlockCheck
from pki.audit.claim_check import ClaimCheck
from pki.audit.federation_check import FederationCheck
from pki.audit.recorded import (
    Difference,
    RecordedBlock,
    RecordedCertificate,
    RecordedClaim,
    RecordedEntry,
    RecordedFederation,
    RecordedToken,
    as_told,
)
from pki.codes import Code
from pki.errors import printable
from pki.serial import serial_hex
from pki.validity import rfc3339

#: What an entry says, as the act of its making tells it.
_MEMBERS = frozenset(
    (
        "selectors",
        "spiffe_id",
        "dns_names",
        "ip_addresses",
        "ttl",
        "max_ttl",
        "keys",
        "comment",
        "common_name",
        "parent",
        "hint",
        "federates_with",
        "reattest",
        "banned",
        "node",
        "claim",
    )
)


@define
class RecordCheck:
    """Reads a whole log, then rows of the tables in any order.

    :meth:`act` for each entry of the log, then :meth:`certificate`, :meth:`entry`, :meth:`token`, :meth:`claim`,
    :meth:`federation` and :meth:`block` for each row, then :meth:`missing`. What grows with the certificates is in a
    scratch file, not in memory.
    """

    now: datetime
    judged: int = field(default=0, init=False)
    unjudged: int = field(default=0, init=False)
    """Rows of which the log says nothing any more, and acts whose rows may have been pruned."""
    _acts: Acts = field(factory=Acts, init=False)
    _knows_feed: bool = field(default=False, init=False)
    _offsets: dict[int, Counter[int]] = field(factory=lambda: defaultdict(Counter), init=False)
    """By how many restores there were before: how far places in the feed are from those in the log, and how often."""
    _moved: dict[tuple[int, int], str] = field(factory=dict, init=False)
    """Which certificate is so far from its place; one of them is enough."""
    _entries_seen: set[str] = field(factory=set, init=False)
    _tokens_seen: set[str] = field(factory=set, init=False)
    _claims: ClaimCheck = field(init=False)
    _federations: FederationCheck = field(init=False)
    _knows_federations: bool = field(default=False, init=False)
    _blocks: BlockCheck = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._claims, self._federations = ClaimCheck(self._acts), FederationCheck(self._acts)
        self._blocks = BlockCheck(self._acts)

    def act(self, row: Row) -> None:
        """One entry of the log, in order. One that cannot be read tells nothing; who examines the log finds it."""
        self._acts.take(row)

    def close(self) -> None:
        """Give back the scratch file."""
        self._acts.close()

    def revocation(self, serial: int, issuer: str) -> None:
        """One that endpoints are told of; before the certificates, with :meth:`knows_feed` after the last."""
        self._acts.tell(serial, issuer)

    def knows_feed(self) -> None:
        """Whatever endpoints are told of was shown, be it nothing: what is revoked must be among it."""
        self._knows_feed = True

    def certificate(self, row: RecordedCertificate) -> Iterator[Difference]:
        """What the log says differently of a certificate."""
        acts = self._acts.of(row.serial)
        if acts.issued is not None or acts.is_carried_over:
            self.judged += 1
        elif self._acts.may_be_untold(row.issued_at):
            self.unjudged += 1
        else:
            detail = "is on record, and the log does not say that it was issued"
            yield _of(row, Code.RECORD_UNKNOWN, detail, None)
        if acts.issued is not None:
            yield from self._changed(row, acts, acts.issued)
        is_unsigned = acts.is_written_off or (acts.issued is None and row.reason == "unspecified")
        if row.is_without_body and not is_unsigned:
            detail = "is on record without the certificate itself, which was signed"
            yield _of(row, Code.RECORD_MISSING, detail, acts.issued)
        yield from self._ended(row, acts)
        self._place(row, acts)
        is_in_force = row.revoked_at is not None and row.expires_at >= self.now
        is_told = acts.told is not None and row.issuer in (None, acts.told)
        if self._knows_feed and is_in_force and not is_told:
            detail = "is revoked, and the record does not tell endpoints so"
            yield _of(row, Code.RECORD_UNREVOKED, detail, acts.ended)

    def _changed(
        self, row: RecordedCertificate, acts: OfCertificate, issued: int
    ) -> Iterator[Difference]:
        """What it says of itself; what the act of an earlier version leaves out is not compared."""
        told = {
            "SPIFFE ID": (row.spiffe_id, acts.spiffe_id),
            "entry": (row.entry, acts.entry),
            "claim": (row.claim, acts.claim),
            "contents": (row.tbs, acts.tbs if row.tbs else None),
        }
        if row.requester is not None:
            told["requester"] = (row.requester, acts.actor)
        if acts.issued_at is not None and abs(row.issued_at - acts.issued_at) > SLACK:
            told["time of issue"] = (rfc3339(row.issued_at), rfc3339(acts.issued_at))
        if acts.expires_at is not None:
            told["end"] = (rfc3339(row.expires_at), acts.expires_at)
        if acts.issuer is not None and row.issuer is not None:
            told["issuer"] = (row.issuer, acts.issuer)
        for what, (ours, theirs) in told.items():
            if ours != theirs:
                detail = (
                    f"is on record with the {what} {as_told(ours)}, and entry {issued} of the log says "
                    f"{as_told(theirs)}"
                )
                yield _of(row, Code.RECORD_CHANGED, detail, issued)

    def _ended(self, row: RecordedCertificate, acts: OfCertificate) -> Iterator[Difference]:
        """Whether it is revoked, since when, and why."""
        ended, at, ours = acts.ended, acts.ended_at, row.revoked_at
        if at is not None:
            if ours is None:
                detail = f"is not revoked by the record, and was at {rfc3339(at)} by entry {ended} of the log"
                yield _of(row, Code.RECORD_UNREVOKED, detail, ended)
            elif abs(ours - at) > SLACK or row.reason != acts.reason:
                detail = (
                    f"was revoked at {rfc3339(ours)} ({row.reason}) by the record, and at {rfc3339(at)} "
                    f"({acts.reason}) by entry {ended} of the log"
                )
                yield _of(row, Code.RECORD_CHANGED, detail, ended)
        elif acts.is_carried_over:
            if ours is None:
                detail = (
                    "is not revoked by the record, and was when a backup was restored, by the log"
                )
                yield _of(row, Code.RECORD_UNREVOKED, detail, None)
        elif ours is not None and not self._acts.may_be_untold(ours):
            detail = "is revoked by the record, and the log does not say so"
            yield _of(row, Code.RECORD_REVOKED, detail, None)

    def _place(self, row: RecordedCertificate, acts: OfCertificate) -> None:
        """Where it is in the feed: in the order of the log, each just after the one before, whatever was pruned."""
        if row.position is None or acts.place is None or acts.is_carried_over:
            return
        era, place = acts.place
        offset = row.position - place
        self._offsets[era][offset] += 1
        self._moved.setdefault((era, offset), serial_hex(row.serial))

    def _displaced(self) -> Iterator[Difference]:
        for era, offsets in self._offsets.items():
            # Where as many speak for one as for another: in a log that is whole the first is told first.
            right, *wrong = sorted(offsets, key=lambda found: (offsets[found], found == 1))[::-1]
            for offset in wrong:
                name, count = self._moved[era, offset], offsets[offset]
                also = f", and {count - 1} more" if count > 1 else ""
                yield Difference(
                    Code.RECORD_CHANGED,
                    "certificate",
                    name,
                    f"the certificate {name}{also} is told to endpoints {abs(offset - right)} places "
                    f"{'after' if offset > right else 'before'} where the log revokes it: some may never hear of it",
                )

    def entry(self, row: RecordedEntry) -> Iterator[Difference]:
        """What the log says differently of a registration entry."""
        self._entries_seen.add(row.id)
        made, name = self._acts.entries.get(row.id), printable(row.id, 60)
        if made is not None:
            self.judged += 1
            told = {fact: said for fact, said in made.facts.items() if fact in _MEMBERS}
            for fact in sorted(told.keys() | row.facts.keys()):
                if told.get(fact) != row.facts.get(fact):
                    yield Difference(
                        Code.RECORD_CHANGED,
                        "entry",
                        row.id,
                        f"the entry {name} is on record with the {fact} {as_told(row.facts.get(fact))}, and entry "
                        f"{made.position} of the log says {as_told(told.get(fact))}",
                        made.position,
                    )
            return
        deleted = self._acts.deleted.get(row.id)
        # What a restore brings over from the record that was replaced.
        is_carried = (row.id == "default" or "banned" in row.facts) and self._acts.restored >= 0
        if deleted is None and (is_carried or self._acts.may_be_untold(row.created_at)):
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
            f"the entry {name} is on record for {as_told(facts.get('spiffe_id'))} with "
            f"{as_told(facts.get('selectors'))}, and {said}",
            deleted,
        )

    def token(self, row: RecordedToken) -> Iterator[Difference]:
        """What the log says differently of a join token."""
        self._tokens_seen.add(row.id)
        made = self._acts.tokens.get(row.id)

        def differs(code: Code, detail: str, act: int | None) -> Difference:
            name = printable(row.id, 60)
            return Difference(code, "token", row.id, f"the token {name} {detail}", act)

        if made is None:
            if self._acts.may_be_untold(row.created_at):
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
                        f"is on record with the {what} {as_told(ours)}, and entry {made.position} of the log says "
                        f"{as_told(theirs)}",
                        made.position,
                    )
        revoked = self._acts.revoked_tokens.get(row.id)
        if revoked is not None and row.revoked_at is None:
            yield differs(
                Code.RECORD_UNREVOKED,
                f"is not revoked by the record, and was by entry {revoked} of the log",
                revoked,
            )
        bought = self._acts.bought_with(row.id)
        if bought is not None and row.serial not in (None, bought[0]) and row.spent_at is not None:
            yield differs(
                Code.RECORD_CHANGED,
                f"has bought {serial_hex(row.serial or 0)} by the record, and {serial_hex(bought[0])} by entry "
                f"{bought[1]} of the log",
                bought[1],
            )
        if bought is not None and row.spent_at is None:
            serial, position = bought
            yield differs(
                Code.RECORD_UNSPENT,
                f"can be spent by the record, and has bought {serial_hex(serial)} by entry {position} of "
                "the log",
                position,
            )

    def claim(self, row: RecordedClaim) -> Iterator[Difference]:
        """What the log says differently of a claim that is used up."""
        return self._claims.row(row)

    def federation(self, row: RecordedFederation) -> Iterator[Difference]:
        """What the log says differently of a trust domain that is federated with."""
        return self._federations.row(row)

    def knows_federations(self) -> None:
        """Every trust domain that is federated with was shown, be it none: what the log tells of must be among them."""
        self._knows_federations = True

    def block(self, row: RecordedBlock) -> Iterator[Difference]:
        """What the log says differently of a key that is blocked."""
        return self._blocks.row(row)

    def missing(self) -> Iterator[Difference]:
        """What the log tells of and no row was shown of. Last."""
        self._acts.pruned_until(self.now)
        yield from self._displaced()
        yield from self._claims.missing()
        yield from self._blocks.missing()
        if self._knows_federations:
            yield from self._federations.missing()
        for check in (self._claims, self._federations, self._blocks):
            self.judged += check.judged
            self.unjudged += check.unjudged
        first, *again = self._acts.settled or (0,)
        for position in again:
            yield Difference(
                Code.RECORD_CHANGED,
                "entry",
                "default",
                f"the CA decided anew by entry {position} of the log whether there is a default entry, as it does in a "
                f"new record only; it had by entry {first}",
                position,
            )
        for serial, position, is_over in self._acts.unseen():
            if is_over:
                self.unjudged += 1
                continue
            name = serial_hex(serial)
            yield Difference(
                Code.RECORD_MISSING,
                "certificate",
                name,
                f"the certificate {name} is not on record, and entry {position} of the log says that it was issued",
                position,
            )
        for kind, told, seen in (
            ("entry", self._acts.entries, self._entries_seen),
            ("token", self._acts.tokens, self._tokens_seen),
        ):
            for name, made in told.items():
                if name in seen:
                    continue
                if made.position < self._acts.restored or self._is_over(kind, name, made):
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

    def _is_over(self, kind: str, name: str, made: Made) -> bool:
        """Whether it may have been pruned: with the token that it was made for, or once it had expired."""
        if kind == "entry":
            return made.facts.get("selectors") == f"token:{name}" and "banned" not in made.facts
        end = time_of(made.facts.get("expires_at"))
        return end is None or self._acts.is_over(end)


def _of(row: RecordedCertificate, code: Code, detail: str, position: int | None) -> Difference:
    name = serial_hex(row.serial)
    named = f"the certificate {name} for {printable(row.spiffe_id, 200)}"
    return Difference(code, "certificate", name, f"{named} {detail}", position)
