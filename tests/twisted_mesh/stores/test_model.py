"""Whatever is told in whatever order, a store says what a dict would."""

import os
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pki.audit.log import Act, Entry
from pki.policy.join_token import token_id
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason, Revocation
from tests.twisted_mesh.stores.certificates import (
    API,
    HOUR,
    ISSUER,
    KEY,
    NOW,
    OTHER_ISSUER,
    OTHER_KEY,
    WEB,
    acts,
    der,
    entry,
    intent,
    release_claim,
    revoke,
    revoke_all,
    write_off,
)
from tests.twisted_mesh.stores.registrations import (
    block_key,
    create_entry,
    create_token,
    delete_entry,
    end_federation,
    entry_of,
    federate,
    keep_bundle,
    revoke_token,
    settle_default,
    stored,
    token_of,
    unblock_key,
)
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores import reading
from twisted_mesh.stores.commands import (
    Admission,
    BlockKey,
    Claim,
    Command,
    CreateEntry,
    CreateToken,
    DeleteEntry,
    EndFederation,
    Federate,
    KeepBundle,
    Prune,
    RecordCertificate,
    RecordIntent,
    RecordIssue,
    ReleaseClaim,
    Revoke,
    RevokeAll,
    RevokeToken,
    SettleDefaultEntry,
    UnblockKey,
    WriteOff,
)
from twisted_mesh.stores.records import (
    AlreadyAttested,
    BlockedKey,
    Conflict,
    EntryGone,
    IssuedCertificate,
    IssuedToken,
    KeyBlocked,
    Query,
    Revoked,
    Status,
    StoredEntry,
    StoredFederation,
    TokenDead,
    TokenSpent,
    Unknown,
    UsedClaim,
)
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

BELOW = SpiffeId.parse("spiffe://mesh.local/service")

serials = st.integers(0, 12)
numbers = st.integers(0, 15)
ids = st.sampled_from([API, WEB, BELOW])
issuers = st.sampled_from([ISSUER, ISSUER, OTHER_ISSUER])
keys = st.sampled_from([KEY, OTHER_KEY])
requests = st.sampled_from([None, None, "one", "two"])
names = st.sampled_from(["a", "b", "c"])
tokens = st.integers(0, 5)
claim_texts = st.sampled_from(["i-1", "i-2"])
times = st.integers(-3, 3).map(lambda hours: NOW + hours * HOUR)
moments = st.one_of(st.none(), times, times.map(lambda time: time + timedelta(microseconds=1)))
claims = st.builds(
    Claim,
    claim_texts,
    st.one_of(st.none(), serials),
    st.one_of(st.none(), times),
)
admissions = st.builds(
    lambda name, before: Admission(
        stored(name, "unix:uid:7"),
        entry(Act.ADMINISTER, 10),
        before,
        None if before is None else entry(Act.ADMINISTER, 11),
    ),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, None, stored("a"), stored("b"), stored("a", "unix:uid:7")]),
).filter(lambda made: made.replaces is None or made.replaces.entry.id == made.entry.entry.id)
intents = st.builds(
    lambda serial, lifetime, issued_at, **facts: intent(
        serial, issued_at=issued_at, expires_at=issued_at + lifetime * HOUR, **facts
    ),
    serials,
    st.integers(1, 3),
    issued_at=times,
    issuer=issuers,
    spiffe_id=ids,
    key=keys,
    renews=st.one_of(st.none(), serials),
    request_key=requests,
    requires=st.one_of(st.none(), st.none(), names),
    token=st.one_of(st.none(), st.none(), tokens.map(lambda number: token_of(number, "").digest)),
    at=st.one_of(st.none(), times),
    entry=st.one_of(st.none(), names),
    claim=st.one_of(st.none(), st.none(), claims),
    admits=st.one_of(st.none(), st.none(), st.none(), admissions),
    rests_on=st.one_of(st.just(()), st.just(()), names.map(lambda name: (name,))),
)
registrations = st.one_of(
    st.builds(create_entry, names),
    st.builds(create_entry, names, st.just("unix:uid:0")),
    st.builds(delete_entry, names),
    st.builds(settle_default, st.sampled_from([None, entry_of("a", "unix:uid:1")])),
    st.builds(
        lambda number, name, lifetime, new: create_token(
            token_of(number, name, expires_at=NOW + lifetime * HOUR), stored(name) if new else None
        ),
        tokens,
        names,
        st.integers(-1, 3),
        st.booleans(),
    ),
    st.builds(lambda number, at: revoke_token(token_of(number, ""), at=at), tokens, times),
)
federations = st.one_of(
    st.builds(federate, st.sampled_from(["b", "c"]), sequence=st.integers(0, 3)),
    st.builds(
        keep_bundle,
        st.sampled_from(["b", "c"]),
        st.integers(0, 3),
        act=st.sampled_from([None, entry(Act.ADMINISTER, 7)]),
        accepts_older=st.booleans(),
    ),
    st.builds(end_federation, st.sampled_from(["b", "c"])),
)
blocks = st.one_of(st.builds(block_key, keys), st.builds(unblock_key, keys))
commands = st.one_of(
    intents,
    intents,
    federations,
    blocks,
    st.builds(RecordIssue, intents, st.integers(0, 1).map(der)),
    registrations,
    st.builds(RecordCertificate, numbers, st.integers(0, 1).map(der)),
    st.builds(lambda number, at: write_off(number, at=at), numbers, times),
    st.builds(
        revoke,
        serials,
        at=times,
        reason=st.sampled_from(Reason),
        issuer=st.one_of(st.none(), st.just(ISSUER)),
    ),
    st.builds(
        lambda given, at, reason: revoke_all(*given, at=at, reason=reason),
        st.lists(serials, max_size=4),
        times,
        st.sampled_from(Reason),
    ),
    st.builds(lambda text, at: release_claim(text, at=at), claim_texts, times),
    st.builds(lambda before: Prune(before, NOW - 1000 * HOUR), times),
)

Answer = (
    IssuedCertificate
    | tuple[IssuedCertificate, ...]
    | IssuedToken
    | BlockedKey
    | type[Exception]
    | int
    | None
)


class Model:
    """What :class:`IStore` promises, in dicts by the number of the intent."""

    def __init__(self) -> None:
        self.count = 0
        self.certificates: dict[int, IssuedCertificate] = {}
        self.requests: dict[str, int] = {}
        self.feed: list[int] = []
        self.acts: list[tuple[Act, str]] = []
        self.entries: dict[str, StoredEntry] = {}
        self.tokens: dict[str, IssuedToken] = {}
        self.federations: dict[str, StoredFederation] = {}
        self.claims: dict[str, UsedClaim] = {}
        self.blocked: dict[str, BlockedKey] = {}
        self.claimed_before: dict[str, UsedClaim] = {}
        self.is_settled = False

    def apply(self, command: Command) -> Answer:
        match command:
            case RecordIntent():
                return self._intend(command)
            case RecordIssue(intended, body):
                number = self._intend(intended)
                if isinstance(number, int):
                    self._change(number, is_pending=False, der=body)
                    return None
                return number
            case RecordCertificate(number, body):
                if not self._is_open(number):
                    return Unknown
                self._change(number, is_pending=False, der=body)
                return None
            case WriteOff(number):
                if not self._is_open(number):
                    return Unknown
                self.requests = {k: n for k, n in self.requests.items() if n != number}
                self._change(number, is_pending=False)
                serial = self.certificates[number].serial
                self.tokens = {
                    id: evolve(t, spent_at=None, serial=None, request=None)
                    if t.serial == serial
                    else t
                    for id, t in self.tokens.items()
                }
                self._give_back(serial)
                self._tell(command.entry)
                return self._revoke(number, command.at, Reason.UNSPECIFIED)
            case Revoke():
                number = self.number_of(command.serial)
                if number is None:
                    return Unknown
                known = self.certificates[number]
                if command.issuer not in (None, known.issuer):
                    return Unknown
                if known.revoked_at is None:
                    self._tell(command.entry)
                return self._revoke(number, command.at, command.reason)
            case RevokeAll(acts):
                return self._revoke_all(command, dict(acts))
            case ReleaseClaim():
                return self._release(command)
            case Prune():
                return self._prune(command)
        return self._register(command)

    def _register(self, command: Command) -> Answer:
        match command:
            case CreateEntry(entry, at):
                if entry.id in self.entries:
                    return Conflict
                self.entries[entry.id] = StoredEntry(entry, at)
            case DeleteEntry(name):
                if self.entries.pop(name, None) is None:
                    return Unknown
                self.tokens = {id: t for id, t in self.tokens.items() if t.entry != name}
            case SettleDefaultEntry(entry, at):
                if self.is_settled:
                    return False
                self.is_settled = True
                if entry is not None:
                    self.entries.setdefault(entry.id, StoredEntry(entry, at))
                self._tell(command.act)
                return True
            case CreateToken(token, _, new):
                if new is not None and new.entry.id in self.entries:
                    return Conflict
                if new is None and token.entry not in self.entries:
                    return Unknown
                if token.id in self.tokens:
                    return Conflict
                if new is not None:
                    self.entries[new.entry.id] = new
                self.tokens[token.id] = token
            case RevokeToken(name, at):
                if name not in self.tokens:
                    return Unknown
                if self.tokens[name].revoked_at is not None:
                    return self.tokens[name]
                self.tokens[name] = evolve(self.tokens[name], revoked_at=at)
                self._tell(command.act)
                return self.tokens[name]
            case _:
                return self._federate(command)
        self._tell(command.act)
        return None

    def _federate(self, command: Command) -> Answer:
        match command:
            case Federate(new):
                if str(new.trust_domain) in self.federations:
                    return Conflict
                self.federations[str(new.trust_domain)] = new
            case KeepBundle(domain, bundle, sequence, at):
                held = self.federations.get(str(domain))
                if held is None:
                    return Unknown
                if sequence < held.sequence and not command.accepts_older:
                    return Conflict
                self.federations[str(domain)] = evolve(
                    held, bundle=bundle, sequence=sequence, fetched_at=at
                )
            case EndFederation(domain):
                if self.federations.pop(str(domain), None) is None:
                    return Unknown
            case BlockKey(new):
                if new.spki not in self.blocked:
                    self.blocked[new.spki] = new
                    self._tell(command.act)
                return self.blocked[new.spki]
            case UnblockKey(spki):
                if spki not in self.blocked:
                    return Unknown
                if self.blocked[spki].serial is not None:
                    return Conflict
                del self.blocked[spki]
            case _:
                raise AssertionError(command)
        if command.act is not None:
            self._tell(command.act)
        return None

    def _intend(self, command: RecordIntent) -> type[Exception] | int:
        if self.number_of(command.certificate.serial) or command.request_key in self.requests:
            return Conflict
        renewed = None if command.renews is None else self.number_of(command.renews)
        if renewed and self.certificates[renewed].revoked_at is not None:
            return Revoked
        if command.certificate.key in self.blocked:
            return KeyBlocked
        entries = dict(self.entries)
        if command.admits is not None:
            made, before = command.admits.entry, command.admits.replaces
            held = entries.pop(made.entry.id, None)
            if (held and held.entry) != (before and before.entry):
                return Conflict
            entries[made.entry.id] = made
        if not {*command.rests_on, command.requires} - {None} <= entries.keys():
            return EntryGone
        if command.claim is not None and (refusal := self._refusal(command, command.claim)):
            return refusal
        if command.token is not None and (refusal := self._spend(command, command.token)):
            return refusal
        if command.claim is not None:
            self._use(command, command.claim)
        if command.admits is not None:
            if command.admits.removal is not None:
                self._tell(command.admits.removal)
                self.tokens = {
                    i: t for i, t in self.tokens.items() if t.entry != command.admits.entry.entry.id
                }
            self._tell(command.admits.act)
        self.entries = entries
        self._tell(command.entry)
        self.count += 1
        self.certificates[self.count] = command.certificate
        if command.request_key is not None:
            self.requests[command.request_key] = self.count
        return self.count

    def _refusal(self, command: RecordIntent, claim: Claim) -> type[Exception] | None:
        used = self.claims.get(claim.text)
        if used is None or used.serial == claim.replaces:
            return None
        return Conflict if used.key == command.certificate.key else AlreadyAttested

    def _use(self, command: RecordIntent, claim: Claim) -> None:
        bought = command.certificate
        if claim.text in self.claims:
            self.claimed_before[claim.text] = self.claims[claim.text]
        else:
            self.claimed_before.pop(claim.text, None)
        self.claims[claim.text] = UsedClaim(
            claim.text,
            bought.key,
            bought.spiffe_id,
            bought.serial,
            command.at or command.entry.at,
            claim.until,
        )

    def _give_back(self, serial: int) -> None:
        for text, used in tuple(self.claims.items()):
            if used.serial == serial:
                before = self.claimed_before.pop(text, None)
                if before is None:
                    del self.claims[text]
                else:
                    number = self.number_of(before.serial)
                    key = used.key if number is None else self.certificates[number].key
                    self.claims[text] = evolve(used, serial=before.serial, key=key)

    def _release(self, command: ReleaseClaim) -> Answer:
        if self.claims.pop(command.claim, None) is None:
            return Unknown
        self._tell(command.act)
        due = [
            (c.serial, evolve(command.revocation, object=serial_hex(c.serial)))
            for _, c in sorted(self.certificates.items())
            if c.claim == command.claim and c.revoked_at is None and c.expires_at >= command.at
        ]
        return self._revoke_all(RevokeAll(tuple(due), command.at, command.reason), dict(due))

    def _spend(self, command: RecordIntent, digest: bytes) -> type[Exception] | None:
        at = command.at or command.entry.at
        token = self.tokens.get(token_id(digest))
        if token is None or token.revoked_at is not None:
            return TokenDead
        if token.spent_at is not None:
            return TokenSpent
        if at > token.expires_at:
            return TokenDead
        if command.requires not in (None, token.entry):
            return EntryGone
        self.tokens[token.id] = evolve(
            token, spent_at=at, serial=command.certificate.serial, request=command.request_key
        )
        return None

    def _revoke(self, number: int, at: datetime, reason: Reason) -> IssuedCertificate:
        if self.certificates[number].revoked_at is None:
            self._change(number, revoked_at=at, reason=reason)
            self.feed.append(number)
            if reason is Reason.KEY_COMPROMISE:
                found = self.certificates[number]
                known = self.blocked.get(found.key, BlockedKey(found.key, at))
                self.blocked[found.key] = evolve(known, serial=known.serial or found.serial)
        return self.certificates[number]

    def _revoke_all(
        self, command: RevokeAll, acts: dict[int, Entry]
    ) -> tuple[IssuedCertificate, ...]:
        revoked = []
        for serial, act in acts.items():
            number = self.number_of(serial)
            if number is not None:
                if self.certificates[number].revoked_at is None:
                    self._tell(act)
                found = self._revoke(number, command.at, command.reason)
                revoked.append(evolve(found, der=None))
        return tuple(revoked)

    def _prune(self, command: Prune) -> int:
        gone = [
            number
            for number, c in self.certificates.items()
            if c.expires_at < command.expired_before and not c.is_pending
        ]
        dead = [t.id for t in self.tokens.values() if t.expires_at < command.expired_before]
        touched = {self.certificates.pop(number).entry for number in gone}
        touched |= {self.tokens.pop(name).entry for name in dead}
        used = {c.entry for c in self.certificates.values()}
        used |= {t.entry for t in self.tokens.values()}
        orphans = [
            name
            for name, stored in self.entries.items()
            if name in touched - used and stored.entry.is_of_token
        ]
        for name in orphans:
            del self.entries[name]
        self.requests = {k: n for k, n in self.requests.items() if n not in gone}
        over = [
            text
            for text, used in self.claims.items()
            if used.until is not None and used.until < command.expired_before
        ]
        for text in over:
            del self.claims[text]
        return len(gone) + len(dead) + len(over) + len(orphans)

    def _tell(self, entry: Entry) -> None:
        self.acts.append((entry.act, entry.object))

    def _is_open(self, number: int) -> bool:
        return number in self.certificates and self.certificates[number].is_pending

    def _change(self, number: int, **facts: Any) -> None:
        self.certificates[number] = evolve(self.certificates[number], **facts)

    def number_of(self, serial: int) -> int | None:
        return next((n for n, c in self.certificates.items() if c.serial == serial), None)

    def list(self, query: Query) -> tuple[IssuedCertificate, ...]:
        found = [
            evolve(c, der=None)
            for _, c in sorted(self.certificates.items(), reverse=True)
            if query.spiffe_id in (None, c.spiffe_id)
            and (query.below is None or str(c.spiffe_id).startswith(f"{query.below}/"))
            and query.issuer in (None, c.issuer)
            and query.key in (None, c.key)
            and query.entry in (None, c.entry)
            and query.claim in (None, c.claim)
            and query.serial in (None, c.serial)
            and query.status in (None, c.status(query.now))
            and (query.expires_before is None or c.expires_at < query.expires_before)
            and (query.expires_after is None or c.expires_at > query.expires_after)
            and (query.issued_before is None or c.issued_at < query.issued_before)
            and (query.issued_after is None or c.issued_at > query.issued_after)
        ]
        return tuple(found)

    def revocations(self, after: int) -> tuple[Revocation, ...]:
        known = [self.certificates.get(number) for number in self.feed]
        return tuple(
            Revocation(c.issuer, c.serial, c.revoked_at, c.reason, c.expires_at)
            for c in known[after if 0 <= after <= len(known) else 0 :]
            if c is not None
        )


class StoreAgainstModel(RuleBasedStateMachine):
    @initialize(few=st.sampled_from([0, 2, 1000]), walk=st.sampled_from([2, 50_000]))
    def begin(self, few: int, walk: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(reading, "_FEW", few)
        self.patch.setattr(reading, "_WALK", walk)
        self.calls, self.model = ThreadCalls(), Model()
        self.store = SqlStore(Sqlite(None), self.calls)
        self.store.start()

    @rule(together=st.lists(commands, min_size=1, max_size=8))
    def tell(self, together: list[Command]) -> None:
        # Nobody knows the number of an intent before it is told.
        unknown = range(self.model.count + 1, self.model.count + 9)
        together = [
            c for c in together if not isinstance(c, RecordCertificate) or c.intent not in unknown
        ]
        answers = [self.store.apply(command) for command in together]
        outcomes = [self.calls.outcome(answer) for answer in answers]
        assert [
            type(outcome) if isinstance(outcome, Exception) else outcome for outcome in outcomes
        ] == [self.model.apply(command) for command in together]

    @rule(
        now=times,
        spiffe_id=st.one_of(st.none(), st.none(), ids),
        below=st.sampled_from([None, None, BELOW, API]),
        status=st.sampled_from([None, *Status]),
        issuer=st.one_of(st.none(), st.none(), issuers),
        key=st.one_of(st.none(), st.none(), keys),
        expires_before=moments,
        expires_after=moments,
        issued_before=moments,
        issued_after=moments,
        limit=st.integers(1, 5),
    )
    def ask(self, now: datetime, limit: int, **filters: Any) -> None:
        query = Query(now, limit=limit, **filters)
        found: tuple[IssuedCertificate, ...] = ()
        while True:
            page = self.calls.result(self.store.list(query))
            assert len(page.certificates) <= limit
            found += page.certificates
            if page.next is None:
                break
            query = evolve(query, cursor=page.next)
        assert found == self.model.list(query)

    @rule(after=st.integers(-1, 14))
    def follow(self, after: int) -> None:
        feed = self.calls.result(self.store.feed(after))
        assert feed.position == len(self.model.feed)
        assert feed.revocations == self.model.revocations(after)

    @rule(request=st.sampled_from(["one", "two"]))
    def repeat(self, request: str) -> None:
        number = self.model.requests.get(request)
        known = None if number is None else self.model.certificates[number]
        assert self.calls.result(self.store.find_request(request)) == known

    @rule()
    def register(self) -> None:
        entries = sorted(self.model.entries.values(), key=lambda s: (s.created_at, s.entry.id))
        assert list(self.calls.result(self.store.entries())) == entries
        tokens = {token.id: token for token in self.calls.result(self.store.tokens())}
        assert tokens == self.model.tokens
        federations = self.calls.result(self.store.federations())
        assert federations == tuple(v for _, v in sorted(self.model.federations.items()))
        blocked = self.calls.result(self.store.blocked_keys())
        assert {found.spki: found for found in blocked} == self.model.blocked

    @rule()
    def audit(self) -> None:
        assert acts(self.store, self.calls) == self.model.acts

    @rule()
    def resolve(self) -> None:
        opened = {i.id: i.certificate for i in self.calls.result(self.store.open_intents())}
        assert opened == {n: c for n, c in self.model.certificates.items() if c.is_pending}

    @invariant()
    def finds_the_same(self) -> None:
        for serial in (0, 5, 12):
            number = self.model.number_of(serial)
            known = None if number is None else self.model.certificates[number]
            assert self.calls.result(self.store.find(serial)) == known

    @invariant()
    def finds_the_same_claims(self) -> None:
        used = self.calls.result(self.store.claims())
        assert {found.claim: found for found in used} == self.model.claims
        assert self.calls.result(self.store.find_claim("i-1")) == self.model.claims.get("i-1")

    @invariant()
    def finds_the_same_tokens(self) -> None:
        for number in (0, 5):
            token = token_of(number, "")
            found = self.calls.result(self.store.find_token(token.digest))
            assert found == self.model.tokens.get(token.id)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.calls.result(self.store.stop())
            self.patch.undo()


TestStoreAgainstModel = StoreAgainstModel.TestCase
# The longest of all tests: a fifth of the runs that others get, and all of them in make soak.
TestStoreAgainstModel.settings = settings(
    stateful_step_count=25,
    max_examples=settings().max_examples // (1 if os.environ.get("MESH_SOAK") == "1" else 5),
)
