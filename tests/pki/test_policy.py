"""Who may do what at the CA: the whole table, and what is granted."""

from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.csr import IssuanceRequest
from pki.names import IPAddress
from pki.policy import (
    Action,
    Certificate,
    Forbidden,
    Kind,
    Lifetimes,
    NoProof,
    Principal,
    TtlOutOfRange,
    administrator,
    anonymous,
    grants_by_default,
    permit,
    workload,
)
from pki.spiffe import SpiffeId
from tests.authorities import BACKEND, MESH, key

FRONTEND = MESH.member("service", "frontend")

ADMINISTRATOR = administrator("unix:uid:0")
WORKLOAD = workload(BACKEND, 1)
ANONYMOUS = anonymous("tcp:127.0.0.1")


def request(
    spiffe_id: SpiffeId = BACKEND,
    dns_names: tuple[str, ...] = (),
    ip_addresses: tuple[IPAddress, ...] = (),
) -> IssuanceRequest:
    return IssuanceRequest(spiffe_id, key().public_key, dns_names, ip_addresses, None, "", "0" * 64)


OWN = Certificate(1, BACKEND)
OTHERS = Certificate(2, FRONTEND)
OF_A_CA = Certificate(3, None)
TARGETS = {
    "nothing yet": None,
    "own request": request(),
    "another's request": request(FRONTEND),
    "own certificate": OWN,
    "another's certificate": OTHERS,
    "a CA's certificate": OF_A_CA,
}
#: For each action, the targets to which a workload may do it; "all" and "none" for short.
WORKLOADS_MAY: dict[Action, set[str] | str] = {
    Action.SIGN: {"nothing yet", "own request"},
    Action.READ_CA: "all",
    Action.READ_BUNDLE: "all",
    Action.READ_TRUST: "all",
    Action.REVOKE: {"nothing yet", "own certificate"},
    Action.LIST: "none",
    Action.READ_CHECKPOINT: "all",
    Action.READ_AUDIT: "none",
    Action.READ_HEALTH: "none",
    Action.DETACH_ROOT: "none",
    Action.LIVENESS: "all",
    Action.READINESS: "none",
    Action.METRICS: "none",
}
NO_PROOF_NEEDED = {Action.READ_CA, Action.READ_BUNDLE, Action.LIVENESS}


def test_the_table_has_a_line_for_every_action() -> None:
    assert set(WORKLOADS_MAY) == set(Action)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("action", Action)
def test_an_administrator_may_do_everything(action: Action, target: str) -> None:
    permit(ADMINISTRATOR, action, TARGETS[target])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("action", Action)
def test_a_caller_without_proof_may_read_what_is_public(action: Action, target: str) -> None:
    if action in NO_PROOF_NEEDED:
        permit(ANONYMOUS, action, TARGETS[target])
        return
    with pytest.raises(NoProof, match=f"{action} needs proof of who you are") as refusal:
        permit(ANONYMOUS, action, TARGETS[target])
    assert refusal.value.code == "no-proof"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("action", Action)
def test_a_workload_may_do_what_the_table_says(action: Action, target: str) -> None:
    may = WORKLOADS_MAY[action]
    if may == "all" or target in may:
        permit(WORKLOAD, action, TARGETS[target])
        return
    with pytest.raises(Forbidden) as refusal:
        permit(WORKLOAD, action, TARGETS[target])
    assert refusal.value.code == "not-authorized"
    assert refusal.value.rule in str(refusal.value)


@pytest.mark.parametrize(
    ("action", "target", "rule"),
    [
        (Action.SIGN, request(FRONTEND), "own-identity-only"),
        (Action.SIGN, request(dns_names=("frontend.mesh.local",)), "names-granted-only"),
        (Action.REVOKE, OTHERS, "own-certificate-only"),
        (Action.LIST, None, "administrators-only"),
    ],
)
def test_a_refusal_names_its_rule(
    action: Action, target: IssuanceRequest | Certificate | None, rule: str
) -> None:
    with pytest.raises(Forbidden) as refusal:
        permit(WORKLOAD, action, target)
    assert refusal.value.rule == rule


def test_a_workload_without_a_name_owns_no_certificate_without_a_name() -> None:
    nameless = Principal(Kind.WORKLOAD, "x509:?")
    with pytest.raises(Forbidden):
        permit(nameless, Action.REVOKE, OF_A_CA)
    with pytest.raises(Forbidden):
        permit(nameless, Action.SIGN, request())


def test_a_renewal_keeps_the_names_that_were_granted_and_gains_none() -> None:
    address = IPv4Address("192.0.2.1")
    holder = workload(BACKEND, 1, ["db.example"], [address])
    permit(holder, Action.SIGN, request(dns_names=("db.example",), ip_addresses=(address,)))
    permit(holder, Action.SIGN, request())
    for wanted in (
        request(dns_names=("db.example", "bank.example")),
        request(ip_addresses=(IPv4Address("192.0.2.2"),)),
    ):
        with pytest.raises(Forbidden, match=r"may not carry (bank\.example|192\.0\.2\.2): "):
            permit(holder, Action.SIGN, wanted)


def test_every_name_too_many_is_told_at_once() -> None:
    wanted = request(dns_names=("a.example", "localhost", "b.example"))
    with pytest.raises(Forbidden, match=r"a\.example, b\.example:"):
        permit(WORKLOAD, Action.SIGN, wanted)


@given(st.sampled_from(Action), st.sampled_from(sorted(TARGETS)), st.sampled_from(Kind))
def test_what_a_weaker_proof_allows_a_stronger_one_does_too(
    action: Action, target: str, kind: Kind
) -> None:
    asking = evolve(WORKLOAD, kind=kind)
    try:
        permit(asking, action, TARGETS[target])
    except (NoProof, Forbidden):
        return
    permit(ADMINISTRATOR, action, TARGETS[target])
    if kind is Kind.ANONYMOUS:
        permit(WORKLOAD, action, TARGETS[target])


@pytest.mark.parametrize(
    ("path", "name", "granted"),
    [
        ("/service/backend", "localhost", True),
        ("/service/backend", "backend.mesh.local", True),
        ("/service/backend", "frontend.mesh.local", False),
        ("/service/backend", "backend", False),
        ("/service/backend", "mesh.local", False),
        ("/service/backend", "x.backend.mesh.local", False),
        ("/service/backend/1", "backend.mesh.local", False),
        ("/service", "service.mesh.local", False),
        ("/job/backend", "backend.mesh.local", False),
        ("/service/backend", "127.0.0.1", True),
        ("/service/backend", "127.8.8.8", True),
        ("/service/backend", "::1", True),
        ("/service/backend", "192.0.2.1", False),
        ("/service/backend", "0.0.0.0", False),
        ("/service/backend", "2001:db8::1", False),
    ],
)
def test_names_that_come_without_anybodys_say_so(path: str, name: str, granted: bool) -> None:
    wanted: str | IPAddress = name
    if name[0].isdigit() or ":" in name:
        wanted = ip_address(name)
        assert isinstance(wanted, IPv4Address | IPv6Address)
    assert grants_by_default(SpiffeId(MESH, path), wanted) is granted


def test_callers_are_named_for_the_log() -> None:
    assert str(ADMINISTRATOR) == "administrator (unix:uid:0)"
    assert str(WORKLOAD) == "spiffe://mesh.local/service/backend"
    assert WORKLOAD.proof == "x509:spiffe://mesh.local/service/backend"
    assert str(ANONYMOUS) == "anonymous (tcp:127.0.0.1)"


LIFETIMES = Lifetimes(default=timedelta(hours=1), maximum=timedelta(hours=24))


def test_who_asks_for_no_lifetime_gets_the_default() -> None:
    assert LIFETIMES.grant(None) == timedelta(hours=1)


@given(st.timedeltas() | st.timedeltas(timedelta(), timedelta(hours=25)))
def test_a_lifetime_is_granted_as_asked_or_refused(asked: timedelta) -> None:
    if timedelta(seconds=1) <= asked <= timedelta(hours=24):
        assert LIFETIMES.grant(asked) == asked
        return
    with pytest.raises(TtlOutOfRange, match=r"ask for 1s to 1d$"):
        LIFETIMES.grant(asked)
