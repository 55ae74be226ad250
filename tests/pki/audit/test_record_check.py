"""What the tables say and the log does not: each falsification is named, and what is honest or pruned is left alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import pytest
from attrs import evolve, frozen

from pki.audit.auditor import Row
from pki.audit.log import Act, Entry
from pki.audit.record_check import RecordCheck
from pki.audit.recorded import (
    Difference,
    RecordedBlock,
    RecordedCertificate,
    RecordedClaim,
    RecordedEntry,
    RecordedFederation,
    RecordedToken,
)
from pki.validity import rfc3339
from tests.authorities import NOW

ISSUER = "ab" * 32
ISSUED, REVOKED, WRITTEN_OFF, BOUGHT = 0x4A01, 0x4A02, 0x4A03, 0x4A04
MEMBERS = {"selectors": "unix:uid:7", "spiffe_id": "spiffe://mesh.local/web"}
LATER = NOW + timedelta(hours=1)
ID = "spiffe://mesh.local/web"


def act(kind: Act, object: str, facts: Mapping[str, str], actor: str = "unix:uid:0") -> Entry:
    return Entry(NOW, kind, actor, object, facts)


def issue(serial: int, actor: str = "unix:uid:7") -> Entry:
    facts = {"spiffe_id": ID, "tbs": f"{serial:064x}", "entry": "web", "expires_at": rfc3339(LATER)}
    facts["issuer"] = ISSUER
    return act(Act.ISSUE, f"{serial:x}", facts, actor)


TOKEN_FACTS = {"did": "create-token", "entry": "t1", "expires_at": rfc3339(LATER), "key": "ab"}
ACTS = (
    act(Act.START, "mesh.local", {"keep_expired": "30d"}),
    act(Act.ADMINISTER, "entry web", {"did": "create-entry", **MEMBERS}),
    act(Act.ADMINISTER, "entry old", {"did": "create-entry", **MEMBERS}),
    act(Act.ADMINISTER, "entry old", {"did": "delete-entry", **MEMBERS}),
    act(Act.ADMINISTER, "token t1", {**TOKEN_FACTS, "selectors": "token:t1", "spiffe_id": ID}),
    act(Act.ADMINISTER, "token t2", {**TOKEN_FACTS, "entry": "web"}),
    act(Act.ADMINISTER, "token t2", {"did": "revoke-token"}),
    issue(ISSUED),
    issue(REVOKED),
    act(Act.REVOKE, f"{REVOKED:x}", {"spiffe_id": ID, "reason": "keyCompromise"}),
    issue(WRITTEN_OFF),
    act(Act.WRITE_OFF, f"{WRITTEN_OFF:x}", {"spiffe_id": ID}),
    issue(BOUGHT, "token:t1"),
)


def certificate(serial: int, reason: str | None = None) -> RecordedCertificate:
    revoked_at = NOW if reason else None
    tbs = f"{serial:064x}"
    requester = "token:t1" if serial == BOUGHT else "unix:uid:7"
    places = {REVOKED: 1, WRITTEN_OFF: 2}
    return RecordedCertificate(
        *(serial, ID, NOW, LATER, revoked_at, reason, "web", tbs, ISSUER, requester),
        places.get(serial),
        is_without_body=serial == WRITTEN_OFF,
    )


def differences(
    acts: Iterable[Row],
    certificates: Iterable[RecordedCertificate],
    entries: Iterable[RecordedEntry],
    tokens: Iterable[RecordedToken],
    now: datetime,
    *,
    claims: Iterable[RecordedClaim] = (),
    blocks: Iterable[RecordedBlock] = (),
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
        for claim in claims:
            yield from check.claim(claim)
        for block in blocks:
            yield from check.block(block)
        yield from check.missing()
    finally:
        check.close()


@frozen
class Tables:
    """An honest record, until a test falsifies it."""

    acts: Sequence[Entry] = ACTS
    certificates: tuple[RecordedCertificate, ...] = (
        certificate(ISSUED),
        certificate(REVOKED, "keyCompromise"),
        certificate(WRITTEN_OFF, "unspecified"),
        certificate(BOUGHT),
    )
    entries: tuple[RecordedEntry, ...] = (
        RecordedEntry("web", MEMBERS, NOW),
        RecordedEntry("t1", {"selectors": "token:t1", "spiffe_id": ID}, NOW),
    )
    tokens: tuple[RecordedToken, ...] = (
        RecordedToken("t1", "t1", LATER, NOW, "ab", spent_at=NOW, serial=BOUGHT),
        RecordedToken("t2", "web", LATER, NOW, "ab", revoked_at=NOW),
    )

    def differences(self, first: int = 0, days: int = 0) -> list[Difference]:
        """Where the text of the acts before ``first`` is pruned, so many days later."""
        rows = [
            Row(n, None if n < first else entry.to_bytes()) for n, entry in enumerate(self.acts)
        ]
        now = NOW + timedelta(days=days)
        return list(differences(rows, self.certificates, self.entries, self.tokens, now))


HONEST = Tables()


def test_an_honest_record_says_what_the_log_says() -> None:
    assert HONEST.differences() == []
    assert HONEST.differences(days=400) == []


def on(number: int, **changes: object) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        rows = list(tables.certificates)
        rows[number] = evolve(rows[number], **changes)
        return evolve(tables, certificates=tuple(rows))

    return change


def without(kind: str, number: int) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        rows = list(getattr(tables, kind))
        del rows[number]
        return evolve(tables, **{kind: tuple(rows)})

    return change


def also(kind: str, row: object) -> Callable[[Tables], Tables]:
    return lambda tables: evolve(tables, **{kind: (*getattr(tables, kind), row)})


def token(number: int, **changes: object) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        rows = list(tables.tokens)
        rows[number] = evolve(rows[number], **changes)
        return evolve(tables, tokens=tuple(rows))

    return change


EVIL = RecordedEntry("evil", {**MEMBERS, "selectors": "unix:uid:666"}, NOW)
FALSIFIED = {
    "un-revoked": (on(1, revoked_at=None, reason=None), "record-unrevoked", "4a02", 9),
    "un-written-off": (on(2, revoked_at=None, reason=None), "record-unrevoked", "4a03", 11),
    "revoked-later": (on(1, revoked_at=NOW + timedelta(days=9)), "record-changed", "4a02", 9),
    "other-reason": (on(1, reason="superseded"), "record-changed", "4a02", 9),
    "revoked-by-hand": (on(0, revoked_at=NOW, reason="superseded"), "record-revoked", "4a01", None),
    "renamed": (on(0, spiffe_id="spiffe://mesh.local/db"), "record-changed", "4a01", 7),
    "other-contents": (on(0, tbs="0" * 64), "record-changed", "4a01", 7),
    "ended-early": (on(0, expires_at=NOW), "record-changed", "4a01", 7),
    "other-issuer": (on(0, issuer="cd" * 32), "record-changed", "4a01", 7),
    "end of the issuer": (on(0, issuer=ISSUER[:16] + "0" * 48), "record-changed", "4a01", 7),
    "other-entry": (on(0, entry="default"), "record-changed", "4a01", 7),
    "other-requester": (on(0, requester="unix:uid:0"), "record-changed", "4a01", 7),
    "issued-later": (on(0, issued_at=LATER), "record-changed", "4a01", 7),
    "without-body": (on(0, is_without_body=True), "record-missing", "4a01", 7),
    "told-in-another-place": (on(1, position=9), "record-changed", "4a02", None),
    "token-for-another": (token(0, serial=ISSUED), "record-changed", "t1", 12),
    "deleted-certificate": (without("certificates", 1), "record-missing", "4a02", 8),
    "added-certificate": (
        also("certificates", certificate(0x4AFF)),
        "record-unknown",
        "4aff",
        None,
    ),
    "added-entry": (also("entries", EVIL), "record-unknown", "evil", None),
    "undeleted-entry": (also("entries", evolve(EVIL, id="old")), "record-unknown", "old", 3),
    "widened-entry": (
        lambda tables: evolve(tables, entries=(evolve(EVIL, id="web"), tables.entries[1])),
        "record-changed",
        "web",
        1,
    ),
    "deleted-entry": (without("entries", 0), "record-missing", "web", 1),
    "un-spent": (token(0, spent_at=None), "record-unspent", "t1", 12),
    "un-revoked-token": (token(1, revoked_at=None), "record-unrevoked", "t2", 6),
    "longer-token": (token(0, expires_at=LATER + timedelta(1)), "record-changed", "t1", 4),
    "any-key-token": (token(0, key=None), "record-changed", "t1", 4),
    "added-token": (
        also("tokens", RecordedToken("t9", "web", LATER, NOW)),
        "record-unknown",
        "t9",
        None,
    ),
    "deleted-token": (without("tokens", 1), "record-missing", "t2", 5),
}


@pytest.mark.parametrize("how", FALSIFIED)
def test_each_falsification_is_named(how: str) -> None:
    change, code, name, position = FALSIFIED[how]
    (found,) = change(HONEST).differences()
    assert (str(found.code), found.name, found.position) == (code, name, position)
    assert name in found.detail


def test_what_the_log_cannot_tell_any_more_is_not_judged() -> None:
    tables = also("entries", EVIL)(also("certificates", certificate(0x4AFF))(HONEST))
    assert tables.differences(first=len(ACTS) - 1) == []
    check = RecordCheck(NOW)
    for position, entry in enumerate(ACTS):
        check.act(Row(position, entry.to_bytes() if position > 7 else None))
    for row in tables.certificates:
        assert list(check.certificate(row)) == []
    assert (check.judged, check.unjudged) == (3, 2)
    check.close()


def test_what_may_have_been_pruned_is_not_missing() -> None:
    tables = evolve(HONEST, certificates=(), tokens=())
    names = {found.name for found in tables.differences(days=29)}
    assert names == {"4a01", "4a02", "4a03", "4a04", "t1", "t2"}
    assert tables.differences(days=31) == []


def test_a_log_that_does_not_say_how_long_is_kept_makes_nothing_missing() -> None:
    acts = (act(Act.START, "mesh.local", {}), *ACTS[1:])
    assert without("certificates", 1)(evolve(HONEST, acts=acts)).differences(days=1) == []


def test_what_a_restore_has_carried_over_or_dropped_is_as_it_says() -> None:
    restore = act(Act.RESTORE, "mesh.local", {"carried_over": "4a01 4aff"})
    tables = evolve(HONEST, acts=(*ACTS, restore), entries=HONEST.entries[1:], tokens=())
    carried = (certificate(ISSUED, "superseded"), certificate(0x4AFF, "superseded"))
    tables = evolve(tables, certificates=(*carried, *HONEST.certificates[1:]))
    assert tables.differences() == []


def test_what_is_no_entry_or_no_serial_tells_nothing() -> None:
    bad = act(Act.REVOKE, "not a serial", {})
    rows = [Row(0, b"rubbish"), Row(1, bad.to_bytes()), Row(2, issue(ISSUED).to_bytes())]
    found = differences(rows, [certificate(ISSUED)], [], [], NOW)
    assert list(found) == []


def test_what_is_revoked_must_be_what_endpoints_are_told() -> None:
    def found(*told: tuple[int, str]) -> list[tuple[str, str]]:
        check = RecordCheck(NOW)
        for position, entry in enumerate(ACTS):
            check.act(Row(position, entry.to_bytes()))
        for serial, issuer in told:
            check.revocation(serial, issuer)
        check.knows_feed()
        rows = [d for row in HONEST.certificates for d in check.certificate(row)]
        check.close()
        return [(str(d.code), d.name) for d in rows]

    assert found((REVOKED, ISSUER), (WRITTEN_OFF, ISSUER)) == []
    assert found((WRITTEN_OFF, ISSUER)) == [("record-unrevoked", "4a02")]
    both = [("record-unrevoked", "4a02"), ("record-unrevoked", "4a03")]
    assert found((REVOKED, "cd" * 32)) == both
    assert found() == both


def test_a_default_entry_that_comes_back_is_found() -> None:
    declined = act(Act.ADMINISTER, "entry default", {"did": "declined"}, "self")
    made = act(Act.ADMINISTER, "entry default", {"did": "create-entry", **MEMBERS}, "self")
    tables = also("entries", RecordedEntry("default", MEMBERS, NOW))(HONEST)
    assert evolve(tables, acts=(*ACTS, made)).differences() == []
    (found,) = evolve(tables, acts=(*ACTS, declined, made)).differences()
    assert (str(found.code), found.name) == ("record-changed", "default")


def test_a_ban_that_is_taken_out_of_its_table_is_found() -> None:
    members = {"selectors": "token:b1", "spiffe_id": "spiffe://mesh.local/mesh/agent/node-1"}
    ban = {**members, "banned": "true"}
    made = act(Act.ADMINISTER, "entry b1", {"did": "create-entry", **ban})
    tables = evolve(HONEST, acts=(*ACTS, made))
    assert also("entries", RecordedEntry("b1", ban, NOW))(tables).differences() == []
    (found,) = tables.differences()
    assert (str(found.code), found.kind, found.name) == ("record-missing", "entry", "b1")
    (found,) = also("entries", RecordedEntry("b1", members, NOW))(tables).differences()
    assert (str(found.code), found.name) == ("record-changed", "b1")


def by_claim(serial: int, claim: str = "i-1", **more: str) -> Entry:
    told = issue(serial)
    return evolve(told, facts={**told.facts, "claim": claim, "uses": "claim", **more})


RELEASE = act(Act.ADMINISTER, "claim i-1", {"did": "release-claim"})
BACK = act(Act.WRITE_OFF, "b", {"spiffe_id": ID})


@pytest.mark.parametrize(
    ("acts", "rows", "found"),
    [
        ([by_claim(10)], [RecordedClaim("i-1", 10, NOW)], []),
        ([by_claim(10)], [], ["record-unspent"]),
        ([by_claim(10), RELEASE], [], []),
        ([by_claim(10), RELEASE], [RecordedClaim("i-1", 10, NOW)], ["record-unknown"]),
        ([by_claim(10), RELEASE, by_claim(12)], [RecordedClaim("i-1", 12, NOW)], []),
        ([by_claim(10), by_claim(12)], [RecordedClaim("i-1", 10, NOW)], ["record-changed"]),
        ([by_claim(10), by_claim(11), BACK], [RecordedClaim("i-1", 10, NOW)], []),
        ([by_claim(11), BACK], [], []),
        ([], [RecordedClaim("i-1", 10, NOW)], ["record-unknown"]),
        ([by_claim(10, until=rfc3339(LATER))], [], ["record-unspent"]),
    ],
)
def test_a_claim_is_used_as_the_log_says(
    acts: list[Entry], rows: list[RecordedClaim], found: list[str]
) -> None:
    log = [Row(n, entry.to_bytes()) for n, entry in enumerate((ACTS[0], *acts))]
    told = differences(log, (), (), (), NOW, claims=rows)
    assert [str(one.code) for one in told if one.kind == "claim"] == found


def test_a_claim_that_nobody_can_show_any_more_may_be_forgotten() -> None:
    log = [ACTS[0], by_claim(10, until=rfc3339(LATER))]
    rows = [Row(n, entry.to_bytes()) for n, entry in enumerate(log)]
    assert [d for d in differences(rows, (), (), (), NOW + timedelta(days=400))] == []


def test_a_certificate_is_not_taken_from_under_its_claim() -> None:
    rows = [Row(0, ACTS[0].to_bytes()), Row(1, by_claim(0x4A01).to_bytes())]
    for claim, codes in (("i-1", []), (None, ["record-changed"]), ("i-2", ["record-changed"])):
        row = evolve(certificate(ISSUED), claim=claim)
        used = [RecordedClaim("i-1", ISSUED, NOW)]
        told = differences(rows, [row], (), (), NOW, claims=used)
        assert [str(one.code) for one in told] == codes


DOMAIN, HAD = "shop.example", {"url": "https://shop.example/bundle", "profile": "https_web"}
FEDERATE = act(Act.ADMINISTER, f"federation {DOMAIN}", {"did": "federate", **HAD})
ENDED = act(Act.ADMINISTER, f"federation {DOMAIN}", {"did": "end-federation"})
ACCEPTED = act(Act.ADMINISTER, f"federation {DOMAIN}", {"did": "accept-bundle", "bundle": "aa"})
RESTORE = act(Act.RESTORE, "mesh.local", {})
FOLLOWED = RecordedFederation(DOMAIN, {**HAD, "crl_url": ""}, NOW)


@pytest.mark.parametrize(
    ("acts", "row", "found"),
    [
        ([FEDERATE], FOLLOWED, []),
        ([FEDERATE], None, ["record-missing"]),
        ([FEDERATE, ENDED], None, []),
        ([FEDERATE, ENDED], FOLLOWED, ["record-unknown"]),
        ([FEDERATE, ENDED, FEDERATE], FOLLOWED, []),
        ([], FOLLOWED, ["record-unknown"]),
        ([FEDERATE], evolve(FOLLOWED, facts={**HAD, "url": "https://x/"}), ["record-changed"]),
        ([FEDERATE], evolve(FOLLOWED, facts={**HAD, "crl_url": "http://x"}), ["record-changed"]),
        ([FEDERATE], evolve(FOLLOWED, facts={}), ["record-changed"] * 2),
        ([FEDERATE, ACCEPTED], evolve(FOLLOWED, bundle="aa"), []),
        ([FEDERATE, ACCEPTED], evolve(FOLLOWED, bundle="bb"), ["record-changed"]),
        ([FEDERATE, ACCEPTED], FOLLOWED, ["record-changed"]),
        # A restore keeps what was heard since the backup, and drops who was ended since.
        ([FEDERATE, ACCEPTED, RESTORE], evolve(FOLLOWED, bundle="bb"), []),
        ([FEDERATE, RESTORE], None, []),
    ],
)
def test_a_trust_domain_is_federated_with_as_the_log_says(
    acts: list[Entry], row: RecordedFederation | None, found: list[str]
) -> None:
    assert [str(one.code) for one in of_federation([ACTS[0], *acts], row)] == found


def of_federation(
    acts: Sequence[Entry], row: RecordedFederation | None, first: int = 0, *, shown: bool = True
) -> list[Difference]:
    check = RecordCheck(NOW)
    try:
        for n, entry in enumerate(acts):
            check.act(Row(n, None if n < first else entry.to_bytes()))
        told = [] if row is None else list(check.federation(row))
        if shown:
            check.knows_federations()
        return [*told, *(one for one in check.missing() if one.kind == "federation")]
    finally:
        check.close()


def test_a_federation_that_the_log_cannot_tell_of_any_more_is_not_judged() -> None:
    acts = [FEDERATE, ACTS[0]]
    assert of_federation(acts, FOLLOWED, first=1) == []
    # An end that it does tell of counts, however old the beginning is.
    (found,) = of_federation([FEDERATE, ENDED], FOLLOWED, first=1)
    assert "entry 1 of the log says that it was ended" in found.detail


def test_a_ca_that_shows_no_federations_is_not_missed_any() -> None:
    assert of_federation([FEDERATE], None, shown=False) == []


STOLEN = "5f" * 32
BLOCK = act(Act.ADMINISTER, f"key {STOLEN}", {"did": "block-key", "reason": "found on a wall"})
UNBLOCK = act(Act.ADMINISTER, f"key {STOLEN}", {"did": "unblock-key"})
COMPROMISED = act(
    Act.REVOKE, f"{REVOKED:x}", {"spiffe_id": ID, "reason": "keyCompromise", "key": STOLEN}
)


@pytest.mark.parametrize(
    ("acts", "rows", "codes"),
    [
        ([BLOCK], [RecordedBlock(STOLEN, NOW)], []),
        ([BLOCK], [], ["record-unrevoked"]),
        ([BLOCK, UNBLOCK], [], []),
        ([BLOCK, UNBLOCK], [RecordedBlock(STOLEN, NOW)], ["record-unknown"]),
        ([], [RecordedBlock(STOLEN, NOW)], ["record-unknown"]),
        ([COMPROMISED], [RecordedBlock(STOLEN, NOW, REVOKED)], []),
        ([COMPROMISED], [], ["record-unrevoked"]),
        ([COMPROMISED], [RecordedBlock(STOLEN, NOW)], ["record-changed"]),
        ([BLOCK, COMPROMISED], [RecordedBlock(STOLEN, NOW)], ["record-changed"]),
        # What was revoked before keys were blocked names none.
        ([], [RecordedBlock(STOLEN, NOW, REVOKED)], []),
        ([act(Act.RESTORE, "mesh.local", {})], [RecordedBlock(STOLEN, NOW)], []),
    ],
)
def test_blocked_keys_are_held_against_the_log(
    acts: Sequence[Entry], rows: Sequence[RecordedBlock], codes: list[str]
) -> None:
    logged = (Row(n, one.to_bytes()) for n, one in enumerate(acts))
    found = list(differences(logged, (), (), (), NOW, blocks=rows))
    assert [difference.code for difference in found] == codes
    assert all(difference.kind == "key" and STOLEN in difference.detail for difference in found)
