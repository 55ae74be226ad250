"""Who comes in by each of the CA's listeners."""

import os
import socket
from datetime import timedelta

import pytest
from attrs import evolve, frozen

from pki.policy.policy import NoProof
from pki.policy.principal import Kind, Principal, anonymous
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, SpiffePattern
from tests.authorities import BACKEND, MESH
from tests.twisted_mesh.attest.processes import NOBODY, calling, only_root
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of, entry, result_of
from tests.twisted_mesh.tls.wires import End, converse
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.api.authentication import (
    Account,
    Authenticator,
    PlaintextAuthenticator,
    SocketAuthenticator,
    TlsAuthenticator,
    of_process,
    principal_of,
)

STRANGER = 4242


@frozen
class Transport:
    """What Twisted hands out for a connection on a unix socket."""

    socket: object


def process(uid: int) -> Attestation:
    selectors = frozenset({Selector("unix:uid", str(uid)), Selector("unix:gid", str(uid))})
    return Attestation(f"unix:uid:{uid}", selectors, uid=uid)


def svid(spiffe_id: SpiffeId = BACKEND) -> Attestation:
    selectors = frozenset({Selector("x509", str(spiffe_id))})
    return Attestation(f"x509:{spiffe_id}", selectors, spiffe_id=spiffe_id, serial=7)


TOKEN = Attestation("token:abc", frozenset({Selector("token", "web")}), entry="e" * 16)
LABEL = Attestation("label:blue", frozenset({Selector("label", "blue")}))


def by(
    authenticator: Authenticator, rig: CaRig, *seen: Attestation, has_lapsed: bool = False
) -> Principal:
    caller = authenticator.principal(Attested(seen, has_lapsed))
    return principal_of(caller, seen, rig.ca.entries.lets_in)


def by_socket(rig: CaRig, *seen: Attestation) -> Principal:
    return by(SocketAuthenticator(rig.ca.entries), rig, *seen)


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_root_and_the_cas_own_user_administer(uid: int, rig: CaRig) -> None:
    principal = by_socket(rig, process(uid))
    assert principal.kind is Kind.ADMINISTRATOR
    assert Selector("unix:uid", str(uid)) in principal.selectors


def test_administrators_issue_only_while_the_default_entry_stands_and_counts(rig: CaRig) -> None:
    entries = rig.ca.entries
    assert not by_socket(rig, process(0)).issues
    default = entry("default", "unix:uid:0", f"spiffe://{MESH}/service/**")
    assert result_of(entries.settle_default(default))
    assert by_socket(rig, process(0)).issues
    entries.expose()
    assert not by_socket(rig, process(0)).issues


def test_a_user_whom_an_entry_names_is_a_workload_and_others_are_nobody(rig: CaRig) -> None:
    assert by_socket(rig, process(STRANGER)).kind is Kind.ANONYMOUS
    made = entry("a" * 16, f"unix:uid:{STRANGER}", BACKEND)
    result_of(rig.ca.entries.create(by_socket(rig, process(0)), made, ""))
    assert by_socket(rig, process(STRANGER)).kind is Kind.WORKLOAD


def test_whoever_is_no_process_is_nobody_on_the_socket(rig: CaRig) -> None:
    assert by_socket(rig) == anonymous("unix:unknown")


def test_over_tls_an_svid_makes_a_workload(rig: CaRig) -> None:
    principal = by(TlsAuthenticator(), rig, svid())
    assert (principal.kind, principal.spiffe_id, principal.serial) == (Kind.WORKLOAD, BACKEND, 7)
    assert not principal.issues


def test_over_tls_a_pattern_makes_an_administrator_who_issues_nothing_without_an_entry(
    rig: CaRig,
) -> None:
    authenticator = TlsAuthenticator((SpiffePattern.parse(f"spiffe://{MESH}/service/*"),))
    principal = by(authenticator, rig, svid())
    assert (principal.kind, principal.issues) == (Kind.ADMINISTRATOR, False)
    other = TlsAuthenticator((SpiffePattern.parse(f"spiffe://{MESH}/ops/*"),))
    assert by(other, rig, svid()).kind is Kind.WORKLOAD


def test_over_tls_a_pattern_makes_a_monitor_who_is_a_workload_for_the_rest(rig: CaRig) -> None:
    ops = SpiffePattern.parse(f"spiffe://{MESH}/ops/*")
    services = SpiffePattern.parse(f"spiffe://{MESH}/service/*")
    principal = by(TlsAuthenticator((), (ops, services)), rig, svid())
    assert (principal.kind, principal.monitors) == (Kind.WORKLOAD, True)
    assert not by(TlsAuthenticator((), (ops,)), rig, svid()).monitors
    assert not by(TlsAuthenticator((), (services,)), rig).monitors
    assert not by(TlsAuthenticator((), (services,)), rig, has_lapsed=True).monitors
    # Whoever is both is an administrator.
    assert by(TlsAuthenticator((services,), (services,)), rig, svid()).kind is Kind.ADMINISTRATOR
    # With a token it is the token that counts.
    assert not by(TlsAuthenticator((), (services,)), rig, svid(), TOKEN).monitors


def test_over_tls_without_an_svid_there_is_nobody(rig: CaRig) -> None:
    assert by(TlsAuthenticator(), rig) == anonymous("tls:no-certificate")


def test_over_tls_an_svid_that_has_lapsed_makes_nobody(rig: CaRig) -> None:
    assert by(TlsAuthenticator(), rig, has_lapsed=True) == anonymous("tls:no-longer-valid")


def test_a_token_counts_where_an_svid_has_lapsed(rig: CaRig) -> None:
    principal = by(TlsAuthenticator(), rig, TOKEN, has_lapsed=True)
    assert (principal.kind, principal.proof) == (Kind.WORKLOAD, "token:abc")


def test_the_plaintext_port_lets_everybody_do_everything(rig: CaRig) -> None:
    principal = by(PlaintextAuthenticator(), rig)
    assert (principal.kind, principal.issues) == (Kind.ADMINISTRATOR, True)


def test_with_a_token_neither_the_svid_nor_being_an_administrator_counts(rig: CaRig) -> None:
    result_of(
        rig.ca.entries.settle_default(entry("default", "unix:uid:0", f"spiffe://{MESH}/service/**"))
    )
    socket, tls = SocketAuthenticator(rig.ca.entries), TlsAuthenticator()
    for authenticator, seen in ((socket, process(0)), (tls, svid())):
        before = by(authenticator, rig, seen)
        for order in ((seen, TOKEN), (TOKEN, seen)):
            principal = by(authenticator, rig, *order)
            assert (principal.proof, principal.entry) == ("token:abc", "e" * 16)
            assert (principal.kind, principal.issues) == (Kind.WORKLOAD, False)
            assert (principal.spiffe_id, principal.serial) == (None, None)
            assert principal.selectors == before.selectors | TOKEN.selectors


def test_one_more_proof_is_added_to_what_the_connection_shows(rig: CaRig) -> None:
    for authenticator, seen in (
        (SocketAuthenticator(rig.ca.entries), process(STRANGER)),
        (SocketAuthenticator(rig.ca.entries), process(0)),
        (TlsAuthenticator(), svid()),
    ):
        before = by(authenticator, rig, seen)
        after = by(authenticator, rig, seen, LABEL)
        assert after.selectors == before.selectors | LABEL.selectors
        assert after.proof == f"{before.proof}, label:blue"
        assert evolve(after, selectors=before.selectors, proof=before.proof) == before


def test_who_has_no_other_proof_is_known_by_that_one(rig: CaRig) -> None:
    for has_lapsed in (False, True):
        principal = by(TlsAuthenticator(), rig, LABEL, has_lapsed=has_lapsed)
        assert principal == anonymous("label:blue", LABEL.selectors)


def test_all_that_was_attested_together_may_be_what_an_entry_names(rig: CaRig) -> None:
    user = process(STRANGER)
    needed = frozenset({Selector("unix:uid", str(STRANGER)), *LABEL.selectors})
    both = evolve(entry("a" * 16, f"unix:uid:{STRANGER}", BACKEND), selectors=needed)
    result_of(rig.ca.entries.create(ADMIN, both, ""))
    assert by_socket(rig, user).kind is Kind.ANONYMOUS
    assert by_socket(rig, user, LABEL).kind is Kind.WORKLOAD


# Whom a request is charged to, before anything is looked up.


def test_a_user_is_charged_for_himself_and_root_is_an_administrator(rig: CaRig) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        account = SocketAuthenticator(rig.ca.entries).account(Evidence.of(Transport(ours)))
    assert account == Account(f"unix:uid:{os.geteuid()}", Kind.ADMINISTRATOR)


@only_root
def test_another_user_is_nobody_until_he_is_attested(rig: CaRig) -> None:
    with calling(uid=NOBODY) as caller:
        account = SocketAuthenticator(rig.ca.entries).account(caller.evidence)
    assert account == Account(f"unix:uid:{NOBODY}", Kind.ANONYMOUS)


def test_whose_connection_has_ended_is_refused(rig: CaRig) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    authenticator, nobody = SocketAuthenticator(rig.ca.entries), ("unix:unknown", False)
    for each in (ours, theirs):
        each.close()
    for transport in (None, object(), Transport(None)):
        assert authenticator.account(Evidence.of(transport)) == Account(
            "unix:unknown", Kind.ANONYMOUS
        )
        assert of_process(transport) == nobody
    with socket.socket(socket.AF_UNIX) as alone:
        with pytest.raises(NoProof):
            authenticator.account(Evidence.of(Transport(alone)))
        assert of_process(Transport(alone)) == nobody


def test_an_svid_is_charged_by_its_id_while_it_is_good() -> None:
    server = End(True)
    connection = converse(End(False), server).served.made[0].transport
    spiffe_id = connection.peer.spiffe_id
    assert TlsAuthenticator().account(Evidence.of(connection)) == Account(
        f"x509:{spiffe_id}", Kind.WORKLOAD
    )
    admins = (SpiffePattern.parse(str(spiffe_id)),)
    account = TlsAuthenticator(admins).account(Evidence.of(connection))
    assert account == Account(f"x509:{spiffe_id}", Kind.ADMINISTRATOR)
    server.time += timedelta(hours=2)
    account = TlsAuthenticator(admins).account(Evidence.of(connection))
    assert account == Account("tls:no-longer-valid", Kind.ANONYMOUS)


def test_without_an_svid_a_caller_is_a_stranger() -> None:
    server = End(True, demands_certificate=False)
    connection = converse(End(False, svid=None), server).served.made[0].transport
    for transport in (connection, None):
        account = TlsAuthenticator().account(Evidence.of(transport))
        assert account == Account("tls:no-certificate", Kind.ANONYMOUS)


def test_an_account_says_of_everybody_what_the_attestors_say_too(rig: CaRig) -> None:
    """So that the audit log's refusals, which are counted by accounts, name nobody otherwise."""
    connection = converse(End(False), End(True)).served.made[0].transport
    attested = result_of(attestors_of(rig).attest(Evidence.of(connection)))
    authenticator = TlsAuthenticator()
    assert (
        authenticator.account(Evidence.of(connection)).proof
        == authenticator.principal(attested).proof
    )
