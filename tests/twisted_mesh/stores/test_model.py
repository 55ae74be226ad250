"""Whatever is told in whatever order, a store says what a dict would."""

from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pki.revocation import Reason, Revocation
from tests.twisted_mesh.stores.certificates import (
    API,
    HOUR,
    ISSUER,
    NOW,
    OTHER_ISSUER,
    WEB,
    der,
    issued,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.records import (
    Command,
    Conflict,
    IssuedCertificate,
    Query,
    RecordCertificate,
    RecordIntent,
    Revoke,
    Status,
    Unknown,
)
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

serials = st.integers(0, 12)
issuers = st.sampled_from([ISSUER, ISSUER, OTHER_ISSUER])
times = st.integers(-3, 3).map(lambda hours: NOW + hours * HOUR)
commands = st.one_of(
    st.builds(
        lambda serial, issuer, spiffe_id, at, lifetime: RecordIntent(
            issued(
                serial,
                issuer=issuer,
                spiffe_id=spiffe_id,
                issued_at=at,
                expires_at=at + lifetime * HOUR,
            )
        ),
        serials,
        issuers,
        st.sampled_from([API, WEB]),
        times,
        st.integers(1, 3),
    ),
    st.builds(RecordCertificate, issuers, serials, st.integers(0, 1).map(der)),
    st.builds(
        Revoke, serials, times, st.sampled_from(Reason), st.one_of(st.none(), st.just(ISSUER))
    ),
)


class Model:
    """What :class:`IStore` promises, in a dict."""

    def __init__(self) -> None:
        self.certificates: dict[int, IssuedCertificate] = {}
        self.revoked: list[int] = []

    def apply(self, command: Command) -> IssuedCertificate | type[Exception] | None:
        if isinstance(command, RecordIntent):
            if command.certificate.serial in self.certificates:
                return Conflict
            self.certificates[command.certificate.serial] = command.certificate
            return None
        known = self.certificates.get(command.serial)
        if known is None or command.issuer not in (None, known.issuer):
            return Unknown
        if isinstance(command, RecordCertificate):
            if known.der not in (None, command.der):
                return Conflict
            self.certificates[command.serial] = evolve(known, der=command.der)
            return None
        if known.revoked_at is None:
            known = evolve(known, revoked_at=command.at, reason=command.reason)
            self.certificates[command.serial] = known
            self.revoked.append(command.serial)
        return known

    def list(self, query: Query) -> tuple[IssuedCertificate, ...]:
        found = [
            c
            for c in self.certificates.values()
            if query.spiffe_id in (None, c.spiffe_id)
            and query.status in (None, c.status(query.now))
            and (query.expires_before is None or c.expires_at < query.expires_before)
        ]
        return tuple(sorted(found, key=lambda c: (c.issued_at, c.serial), reverse=True))


class StoreAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.calls, self.model = ThreadCalls(), Model()
        self.store = SqlStore(Sqlite(None), self.calls)
        self.store.start()

    @rule(together=st.lists(commands, min_size=1, max_size=8))
    def tell(self, together: list[Command]) -> None:
        answers = [self.store.apply(command) for command in together]
        outcomes = [self.calls.outcome(answer) for answer in answers]
        assert [
            type(outcome) if isinstance(outcome, Exception) else outcome for outcome in outcomes
        ] == [self.model.apply(command) for command in together]

    @rule(
        now=times,
        spiffe_id=st.sampled_from([None, API, WEB]),
        status=st.sampled_from([None, *Status]),
        expires_before=st.one_of(st.none(), times.map(lambda t: t + timedelta(microseconds=1))),
        limit=st.integers(1, 5),
    )
    def ask(self, now: datetime, limit: int, **filters: Any) -> None:
        query = Query(now, limit=limit, **filters)
        pages = []
        while True:
            page = self.calls.result(self.store.list(query))
            pages.append(page.certificates)
            if page.next is None:
                break
            query = evolve(query, cursor=page.next)
        assert all(len(page) == limit for page in pages[:-1])
        assert sum(pages, ()) == self.model.list(query)

    @rule(after=st.integers(-1, 14))
    def follow(self, after: int) -> None:
        feed = self.calls.result(self.store.feed(after))
        known = [self.model.certificates[serial] for serial in self.model.revoked]
        assert feed.position == len(known)
        assert feed.revocations == tuple(
            Revocation(c.issuer, c.serial, c.revoked_at, c.reason, c.expires_at)
            for c in known[after if 0 <= after <= len(known) else 0 :]
        )

    @invariant()
    def finds_the_same(self) -> None:
        for serial in (0, 5, 12):
            found = self.calls.result(self.store.find(serial))
            assert found == self.model.certificates.get(serial)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.calls.result(self.store.stop())


TestStoreAgainstModel = StoreAgainstModel.TestCase
