"""Who comes in by each of the CA's listeners."""

import os
from typing import Any

import pytest
from attrs import frozen

from pki.policy.policy import Kind, NoProof
from pki.policy.selector import Selector
from pki.spiffe import SpiffePattern
from tests.authorities import BACKEND, MESH
from tests.twisted_mesh.ca.rigs import CaRig, entry, result_of
from twisted_mesh.attest.evidence import Attestation
from twisted_mesh.ca.api.authentication import (
    PlaintextAuthenticator,
    SocketAuthenticator,
    TlsAuthenticator,
    with_token,
)

STRANGER = 4242


@frozen
class Attestor:
    """Sees the same whoever comes."""

    seen: Attestation | Exception | None

    async def attest(self, evidence: Any) -> Attestation | None:
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen


def process(uid: int) -> Attestor:
    selectors = frozenset({Selector("unix:uid", str(uid)), Selector("unix:gid", str(uid))})
    return Attestor(Attestation(f"unix:uid:{uid}", selectors, uid=uid))


def svid(spiffe_id: Any = BACKEND) -> Attestor:
    selectors = frozenset({Selector("x509", str(spiffe_id))})
    return Attestor(Attestation(f"x509:{spiffe_id}", selectors, spiffe_id=spiffe_id, serial=7))


def by_socket(rig: CaRig, attestor: Attestor) -> Any:
    return result_of(SocketAuthenticator(rig.ca.entries, attestor).principal(None))


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


def test_a_process_that_is_gone_is_not_let_in(rig: CaRig) -> None:
    with pytest.raises(NoProof):
        by_socket(rig, Attestor(NoProof("the process that connected has exited")))


def test_over_tls_an_svid_makes_a_workload() -> None:
    principal = result_of(TlsAuthenticator(attestor=svid()).principal(None))
    assert (principal.kind, principal.spiffe_id, principal.serial) == (Kind.WORKLOAD, BACKEND, 7)
    assert not principal.issues


def test_over_tls_a_pattern_makes_an_administrator_who_issues_nothing_without_an_entry() -> None:
    authenticator = TlsAuthenticator((SpiffePattern.parse(f"spiffe://{MESH}/service/*"),), svid())
    principal = result_of(authenticator.principal(None))
    assert (principal.kind, principal.issues) == (Kind.ADMINISTRATOR, False)
    other = TlsAuthenticator((SpiffePattern.parse(f"spiffe://{MESH}/ops/*"),), svid())
    assert result_of(other.principal(None)).kind is Kind.WORKLOAD


@pytest.mark.parametrize("seen", [None, NoProof("expired")])
def test_over_tls_without_a_good_svid_there_is_nobody(seen: Any) -> None:
    principal = result_of(TlsAuthenticator(attestor=Attestor(seen)).principal(None))
    assert (principal.kind, principal.selectors) == (Kind.ANONYMOUS, frozenset())


def test_the_plaintext_port_lets_everybody_do_everything() -> None:
    principal = result_of(PlaintextAuthenticator().principal(None))
    assert (principal.kind, principal.issues) == (Kind.ADMINISTRATOR, True)


def test_with_a_token_neither_the_svid_nor_being_an_administrator_counts(rig: CaRig) -> None:
    result_of(
        rig.ca.entries.settle_default(entry("default", "unix:uid:0", f"spiffe://{MESH}/service/**"))
    )
    token = Attestation("token:abc", frozenset({Selector("token", "web")}), entry="e" * 16)
    for before in (
        by_socket(rig, process(0)),
        result_of(TlsAuthenticator(attestor=svid()).principal(None)),
    ):
        principal = with_token(before, token)
        assert (principal.proof, principal.entry) == ("token:abc", "e" * 16)
        assert (principal.spiffe_id, principal.serial, principal.issues) == (None, None, False)
        assert principal.selectors == before.selectors | token.selectors
