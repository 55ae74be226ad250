"""The trust domains that a CA follows: kept over a restart, told to whom it concerns, never going back by itself."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from attrs import evolve

from pki.audit.auditor import Row
from pki.audit.log import Act
from pki.audit.record_check import RecordCheck
from pki.audit.recorded import Difference
from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.policy.principal import Principal, administrator, anonymous, workload
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BadBundle, TrustBundle
from pki.svid.federation import BadFederation, OlderBundle, Profile, Relationship
from tests.authorities import BACKEND, DAY, MESH, NOW, OTHER, key, mesh
from tests.twisted_mesh.ca.api.test_wire import Api
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, EndpointDown, ca_rig, entry, result_of
from tests.twisted_mesh.stores.certificates import acts
from twisted_mesh.api.log_messages import RecordRows
from twisted_mesh.ca.federated import Federated, document_of, read_given
from twisted_mesh.ca.federation import Federations
from twisted_mesh.ca.federation_history import FederationHistory
from twisted_mesh.cli.ctl.audit_record import of_federations
from twisted_mesh.stores.records import Conflict, StoredFederation, StoreError, Unknown

WEB = Relationship(OTHER, "https://other.example/bundle", Profile.HTTPS_WEB)
SPIFFE = Relationship(
    OTHER,
    "https://ca.other.example:8445/bundle",
    Profile.HTTPS_SPIFFE,
    SpiffeId.parse("spiffe://other.example/mesh/ca"),
)
THIRD = TrustDomain("third.example")
THEIRS = evolve(mesh(OTHER).bundle, sequence=5)
SELECTOR = Selector.parse("unix:uid:7")
SEVEN = anonymous("unix:uid:7", frozenset({SELECTOR}))


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig() as made:
        yield made


def federations(rig: CaRig) -> Federations:
    return rig.ca.federations


def add(
    rig: CaRig, relationship: Relationship = WEB, bundle: TrustBundle | None = None
) -> Federated:
    return result_of(federations(rig).add(ADMIN, relationship, bundle, "why"))


def refresh(rig: CaRig, name: str = "other.example", *, accept_older: bool = False) -> Federated:
    return result_of(federations(rig).refresh(ADMIN, name, "", accept_older=accept_older))


def remove(rig: CaRig, name: str = "other.example") -> None:
    result_of(federations(rig).remove(ADMIN, name, "over"))


def serve(rig: CaRig, bundle: TrustBundle = THEIRS) -> None:
    rig.endpoints.bundles[bundle.trust_domain] = bundle


def restart(rig: CaRig) -> None:
    rig.found()
    result_of(federations(rig).load())


def register(rig: CaRig, name: str = "e", *domains: TrustDomain, **more: Any) -> None:
    new = entry(name, str(SELECTOR), BACKEND, **more)
    new = evolve(new, federates_with=domains or (OTHER,))
    result_of(rig.ca.entries.create(ADMIN, new, ""))


def told(rig: CaRig, principal: Principal) -> set[TrustDomain]:
    """The trust domains of which ``principal`` is told, besides our own."""
    published = result_of(rig.ca.told_to(principal))()
    assert MESH in published.bundles.bundles
    return set(published.bundles.bundles) - {MESH}


def facts(rig: CaRig) -> list[dict[str, str]]:
    result_of(rig.log.extend())
    rows, _ = rig.calls.result(rig.store.store.log_entries(0, 100))
    return [json.loads(row.entry)["facts"] for row in rows if row.entry]


# What is kept.


def test_what_is_added_is_followed_and_kept(rig: CaRig) -> None:
    added = add(rig)
    assert (added.is_believed, added.following.bundle) == (False, None)
    serve(rig)
    assert refresh(rig).is_believed
    restart(rig)
    (kept,) = federations(rig)
    assert kept.relationship == WEB
    assert kept.is_believed
    assert kept.following.bundle == THEIRS
    assert kept.following.fetched_at == rig.now()


def test_a_given_bundle_is_believed_before_its_endpoint_has_answered(rig: CaRig) -> None:
    assert add(rig, SPIFFE, THEIRS).is_believed
    with pytest.raises(EndpointDown):
        refresh(rig)
    restart(rig)
    (kept,) = federations(rig)
    assert (kept.relationship, kept.is_believed) == (SPIFFE, True)


def test_what_is_removed_is_gone_after_a_restart_too(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    remove(rig)
    assert list(federations(rig)) == []
    assert federations(rig).believed().bundles == {}
    restart(rig)
    assert list(federations(rig)) == []
    for asked in (federations(rig).remove(ADMIN, "other.example", ""),):
        with pytest.raises(Unknown, match="is not federated with"):
            result_of(asked)


def test_a_trust_domain_is_added_once(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    with pytest.raises(Conflict, match="mesh-ctl federation remove other"):
        add(rig)
    assert federations(rig).find("other.example").relationship == SPIFFE


def test_where_nothing_can_be_written_nothing_is_added(rig: CaRig) -> None:
    rig.store.broken = {"Federate"}
    with pytest.raises(StoreError):
        add(rig, SPIFFE, THEIRS)
    assert list(federations(rig)) == []
    assert federations(rig).believed().bundles == {}


def test_where_nothing_can_be_written_nothing_is_removed(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    rig.store.broken = {"EndFederation"}
    with pytest.raises(StoreError):
        remove(rig)
    assert federations(rig).find("other.example").is_believed


def test_a_bundle_that_cannot_be_kept_counts_and_is_kept_with_the_next_answer(rig: CaRig) -> None:
    add(rig)
    serve(rig)
    rig.store.broken = {"KeepBundle"}
    assert refresh(rig).is_believed
    rig.store.broken = set()
    rig.time += timedelta(minutes=5)
    refresh(rig)
    restart(rig)
    assert federations(rig).find("other.example").following.sequence == 5


def test_a_bundle_never_goes_back_unless_somebody_says_so(rig: CaRig) -> None:
    add(rig)
    serve(rig)
    refresh(rig)
    serve(rig, evolve(THEIRS, sequence=4))
    rig.time += timedelta(minutes=5)
    with pytest.raises(OlderBundle, match="--accept-older"):
        refresh(rig)
    assert federations(rig).find("other.example").following.sequence == 5
    restart(rig)
    with pytest.raises(OlderBundle):
        refresh(rig)
    assert refresh(rig, accept_older=True).following.sequence == 4
    restart(rig)
    assert federations(rig).find("other.example").following.sequence == 4
    assert {"did": "refresh-federation", "accept_older": "true"} in facts(rig)


def test_the_log_says_who_federates_and_which_roots_came(rig: CaRig) -> None:
    add(rig)
    serve(rig)
    refresh(rig)
    rig.time += timedelta(minutes=5)
    refresh(rig)
    remove(rig)
    did = [told.get("did") for told in facts(rig)]
    # What only stands is not written each time.
    assert did == [
        *("federate", "refresh-federation", "accept-bundle", "refresh-federation"),
        "end-federation",
    ]
    assert set(acts(rig.store.store, rig.calls)) == {(Act.ADMINISTER, "federation other.example")}
    accepted = next(told for told in facts(rig) if told["did"] == "accept-bundle")
    assert accepted["sequence"] == "5"
    assert accepted["roots"].startswith("sha256:")
    assert facts(rig)[0]["url"] == WEB.url


def test_what_is_too_old_is_handed_out_no_more_and_doctor_says_so(rig: CaRig) -> None:
    add(rig)
    serve(rig)
    refresh(rig)
    register(rig)
    assert told(rig, SEVEN) == {OTHER}
    assert health(rig) == ("ok", "1 of 1 federated trust domains are believed")
    federations(rig).follower.startService()
    rig.endpoints.bundles.clear()
    rig.time += 4 * DAY
    rig.clock.advance(400)
    assert told(rig, SEVEN) == set()
    word, detail = health(rig)
    assert word == "warn"
    assert "0 of 1" in detail and "other.example: its bundle is 4 days old" in detail
    # After a restart it is as old as before.
    federations(rig).follower.stopService()
    restart(rig)
    assert told(rig, SEVEN) == set()
    serve(rig)
    refresh(rig)
    assert told(rig, SEVEN) == {OTHER}


def health(rig: CaRig) -> tuple[str, str]:
    rig.seconds += 2
    checks = {check.name: check for check in result_of(rig.ca.health.examine())}
    return checks["federation"].standing.word, checks["federation"].detail


def test_a_ca_that_federates_with_nobody_is_well(rig: CaRig) -> None:
    assert health(rig) == ("ok", "no other trust domain is federated with")


@pytest.mark.parametrize("spoilt", [b"", b"{}", b"[", b'{"url":"http://x/"}', b"\xff"])
def test_a_relationship_that_another_hand_has_changed_is_not_followed_and_can_be_removed(
    rig: CaRig, spoilt: bytes
) -> None:
    add(rig, SPIFFE, THEIRS)
    add(rig, evolve(WEB, trust_domain=THIRD))
    kept = rig.calls.result(rig.store.store.federations())

    restart_with(
        rig,
        *(evolve(one, relationship=spoilt) if one.trust_domain == OTHER else one for one in kept),
    )
    assert [one.trust_domain for one in federations(rig)] == [THIRD]
    assert set(federations(rig).unreadable) == {OTHER}
    assert federations(rig).believed().bundles == {}
    assert "cannot be used" in health(rig)[1]
    with pytest.raises(Conflict, match="remove it and add it anew"):
        federations(rig).find("other.example")
    remove(rig)
    assert federations(rig).unreadable == {}


def restart_with(rig: CaRig, *rows: StoredFederation) -> None:
    """With these in the table, whoever put them there."""

    class Spoilt:
        async def federations(self) -> Any:
            return rows

        def __getattr__(self, name: str) -> Any:
            return getattr(rig.store, name)

    rig.found()
    federations(rig).store = Spoilt()  # type: ignore[assignment]
    result_of(federations(rig).load())
    federations(rig).store = rig.store


def kept_of(rig: CaRig) -> StoredFederation:
    (one,) = rig.calls.result(rig.store.store.federations())
    found: StoredFederation = one
    return found


EVIL = evolve(mesh(OTHER, root_key=key("evil"), issuing_key=key("evil's")).bundle, sequence=5)
#: What somebody makes of the row, and why it is believed no more.
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "bundle": ({"bundle": EVIL.to_jwks()}, "not the one that the audit log has"),
    "no bundle": ({"bundle": None}, "."),
    "url": (
        {"relationship": document_of(evolve(SPIFFE, url="https://evil.example/b"))},
        "it was another, at https://ca.other.example:8445/bundle",
    ),
    "crl": (
        {"relationship": document_of(evolve(SPIFFE, crl_url="http://evil.example/crl"))},
        "it was another",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_that_the_log_contradicts_has_nobody_believed(rig: CaRig, change: str) -> None:
    add(rig, SPIFFE, THEIRS)
    result_of(rig.log.extend())
    honest = kept_of(rig)
    restart_with(rig, honest)
    assert OTHER in federations(rig).believed().bundles
    changes, why = CHANGES[change]
    restart_with(rig, evolve(honest, **changes))
    assert federations(rig).believed().bundles == {}
    assert re.search(why, federations(rig).unreadable[OTHER])


@pytest.mark.parametrize("change", CHANGES)
def test_whoever_verifies_the_log_is_shown_the_row_as_it_stands(rig: CaRig, change: str) -> None:
    add(rig, SPIFFE, THEIRS)
    assert differing(rig) == []
    # Changed under a CA that runs, which has another in its memory.
    tampered = evolve(kept_of(rig), **CHANGES[change][0])
    rig.calls.result(rig.store.store._read(lambda connection: put(connection, tampered)))
    (found,) = differing(rig)
    assert (found.code, found.name) == (Code.RECORD_CHANGED, str(OTHER))


def put(connection: Any, row: StoredFederation) -> None:
    statement = "UPDATE federation SET relationship = ?, bundle = ?"
    connection.connection.driver_connection.execute(statement, (row.relationship, row.bundle))


def differing(rig: CaRig) -> list[Difference]:
    """What ``audit verify`` finds of federations, by what the CA shows it."""
    answer = Api(rig).ask("all", "GET", "/api/v1/audit/record", rest="?limit=1")
    shown = msgspec.json.decode(answer.body, type=RecordRows)
    result_of(rig.log.extend())
    rows, _ = rig.calls.result(rig.store.store.log_entries(0, 100))
    with closing(RecordCheck(NOW)) as check:
        for row in rows:
            check.act(Row(row.position, row.entry))
        return list(of_federations(check, shown))


def test_a_row_that_the_log_knows_nothing_of_has_nobody_believed(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    result_of(rig.log.extend())
    planted = evolve(kept_of(rig), trust_domain=THIRD, bundle=None, relationship=document_of(WEB))
    restart_with(rig, planted)
    assert "was never begun" in federations(rig).unreadable[THIRD]
    ended = kept_of(rig)
    remove(rig)
    restart_with(rig, ended)
    assert "was ended" in federations(rig).unreadable[OTHER]


def test_what_was_accepted_from_the_endpoint_stands_after_a_restart(rig: CaRig) -> None:
    add(rig, WEB)
    serve(rig)
    refresh(rig)
    serve(rig, evolve(THEIRS, sequence=6))
    refresh(rig)
    restart(rig)
    assert federations(rig).unreadable == {}
    assert OTHER in federations(rig).believed().bundles


def test_what_was_heard_since_a_backup_is_not_held_against_the_log_of_the_backup(
    rig: CaRig,
) -> None:
    add(rig, SPIFFE, THEIRS)
    result_of(rig.log.record(Act.RESTORE, "mesh.local", {}))
    result_of(rig.log.extend())
    newer = evolve(THEIRS, sequence=6)
    restart_with(rig, evolve(kept_of(rig), bundle=newer.to_jwks(), sequence=6))
    assert federations(rig).unreadable == {}
    history = FederationHistory.of([b"damaged"], is_whole=False)
    history.vouch(kept_of(rig), SPIFFE)  # it was pruned: nothing is known


# Who is told.


def test_only_whom_an_entry_lets_in_that_federates_is_told(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    root = administrator("unix:uid:0", frozenset({Selector.parse("unix:uid:0")}))
    everybody = (SEVEN, root, administrator("insecure-http"), workload(BACKEND, 1))
    assert [told(rig, who) for who in everybody] == [set()] * 4
    register(rig)
    assert [told(rig, who) for who in everybody] == [{OTHER}, set(), set(), set()]
    assert told(rig, evolve(root, selectors=frozenset({SELECTOR}))) == {OTHER}


def test_an_svid_is_told_what_the_entry_that_bought_it_says(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    register(rig)
    leaf, *_ = rig.sign(principal=SEVEN)
    holder = workload(BACKEND, leaf.serial_number)
    assert told(rig, holder) == {OTHER}
    # Whatever other entry it would meet by its ID.
    other = workload(BACKEND, rig.sign()[0].serial_number)
    assert told(rig, other) == set()
    result_of(rig.ca.entries.delete(ADMIN, "e", ""))
    assert told(rig, holder) == set()
    assert told(rig, SEVEN) == set()


def test_an_agent_is_told_what_its_workloads_are(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    agent = MESH.member("mesh", "agent", "node-1")
    register(rig, "e", OTHER, parent=str(agent))
    assert told(rig, workload(agent, 5)) == {OTHER}
    assert told(rig, workload(MESH.member("mesh", "agent", "node-2"), 6)) == set()
    assert told(rig, SEVEN) == set()


def test_who_waits_already_is_told_once_an_entry_comes_and_no_holder_of_another_ones(
    rig: CaRig,
) -> None:
    add(rig, SPIFFE, THEIRS)
    leaf, *_ = rig.sign()
    agent = MESH.member("mesh", "agent", "node-1")
    by_x509 = evolve(
        workload(BACKEND, leaf.serial_number),
        selectors=frozenset({Selector.parse(f"x509:{BACKEND}")}),
    )
    sevens, agents, holders = (
        result_of(rig.ca.told_to(who)) for who in (SEVEN, workload(agent, 5), by_x509)
    )
    register(rig)
    register(rig, "child", OTHER, parent=str(agent))
    new = evolve(entry("x", f"x509:{BACKEND}", BACKEND), federates_with=(OTHER,))
    result_of(rig.ca.entries.create(ADMIN, new, ""))
    assert OTHER in sevens().bundles.bundles
    assert OTHER in agents().bundles.bundles
    assert OTHER not in holders().bundles.bundles
    assert told(rig, by_x509) == set()


def test_each_trust_domain_is_told_by_itself(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    third = mesh(THIRD).bundle
    add(
        rig,
        Relationship(THIRD, "https://t.example/", Profile.HTTPS_SPIFFE, THIRD.member("ca")),
        third,
    )
    register(rig, "e", OTHER, THIRD)
    published = result_of(rig.ca.told_to(SEVEN))()
    assert published.bundles.bundles[OTHER] == THEIRS
    assert published.bundles.bundles[THIRD] == third
    assert list(published.bundles.bundles) == [MESH, OTHER, THIRD]
    remove(rig)
    assert told(rig, SEVEN) == {THIRD}


def test_an_edition_is_of_what_one_is_told(rig: CaRig) -> None:
    nobodys, sevens = (result_of(rig.ca.told_to(who)) for who in (workload(BACKEND, 1), SEVEN))
    register(rig)
    add(rig)
    before = nobodys().edition
    assert sevens().edition == before
    serve(rig)
    refresh(rig)
    assert nobodys().edition == before
    assert sevens().edition != before
    assert sevens() is sevens()


def test_the_ca_itself_believes_no_other_trust_domain(rig: CaRig) -> None:
    add(rig, SPIFFE, THEIRS)
    register(rig)
    assert list(rig.ca.bundles().bundles) == [MESH]
    assert set(rig.ca.believed_by_workloads().bundles) == {MESH, OTHER}


# What is given.


def test_a_given_bundle_is_spiffes_json_or_pem() -> None:
    assert read_given(OTHER, THEIRS.to_jwks().decode()) == THEIRS
    assert read_given(OTHER, THEIRS.to_pem().decode()).roots == THEIRS.roots


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", Malformed),
        ("{", BadBundle),
        ('{"keys": []}', BadBundle),
        ("<html>", PkiError),
        ("x" * 100_000, BadBundle),
        ("\ud800", PkiError),
    ],
)
def test_what_is_no_bundle_is_refused(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        read_given(OTHER, text)


def test_our_own_trust_domain_is_federated_with_by_nobody(rig: CaRig) -> None:
    with pytest.raises(BadFederation, match="our own trust domain"):
        Relationship.parse(str(MESH), WEB.url, "https_web", own=rig.ca.trust_domain)
