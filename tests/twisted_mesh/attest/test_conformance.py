"""What every attestor does, whatever the evidence is that it looks at."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from zope.interface.verify import verifyObject

from pki.errors import PkiError
from pki.policy.join_token import JoinToken
from pki.policy.policy import NoProof
from pki.policy.selector import Selector, SelectorKind
from tests.authorities import MESH, NOW
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.processes import (
    Transport,
    calling,
    open_descriptors,
    outcome,
    process_attestor,
)
from tests.twisted_mesh.attest.records import Record
from tests.twisted_mesh.attest.shared_secret import HEADER, NAME, SECRET, SharedSecretAttestor
from tests.twisted_mesh.attest.tokens import Tokens
from tests.twisted_mesh.tls.wires import End, converse
from twisted_mesh.attest.evidence import AttestationData, Evidence
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.attest.registry import ATTESTORS as HOUSE
from twisted_mesh.attest.registry import Attestors


@frozen
class Case:
    """One attestor with evidence for it."""

    attestor: Any
    gather: Callable[[], Evidence]
    """What a request brings along now."""
    spoil: Callable[[], Any]
    """Has the good evidence be of no worth any more."""

    @property
    def good(self) -> Evidence:
        return self.gather()


def a_process(stack: ExitStack) -> Case:
    caller = stack.enter_context(calling())
    return Case(process_attestor(), lambda: caller.evidence, caller.exit)


def an_svid(stack: ExitStack) -> Case:
    server = End(True, demands_certificate=False)
    connection = converse(End(False), server).served.made[0].transport

    def spoil() -> None:
        server.time += timedelta(hours=2)

    return Case(Record().attestor, partial(Evidence.of, connection), spoil)


def a_token(stack: ExitStack) -> Case:
    tokens = Tokens()
    return Case(
        tokens.attestor, lambda: tokens.evidence, partial(tokens.become, revoked_at=tokens.time)
    )


def a_secret(stack: ExitStack) -> Case:
    attestor = SharedSecretAttestor()
    headers = Headers({HEADER: [SECRET]})

    def spoil() -> None:
        attestor.secrets = {NAME: b"another"}

    return Case(attestor, lambda: Evidence(headers=headers), spoil)


MEANS: Any = Means(
    Clock(),  # type: ignore[arg-type]
    Tokens().find,
    {}.get,
    lambda: NOW,
    Record().find,
    trust_domain=MESH,
)
ATTESTORS = {"process": a_process, "svid": an_svid, "token": a_token, "secret": a_secret}


MADE = {
    made.name: made for made in (attestor.of(MEANS) for attestor in (*HOUSE, SharedSecretAttestor))
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    """Those of an attestor of the tests are declared as a CA declares them, and forgotten."""
    with own_kinds():
        Attestors((SharedSecretAttestor(),))
        yield


@pytest.fixture(params=ATTESTORS)
def case(request: pytest.FixtureRequest, stack: ExitStack) -> Case:
    return ATTESTORS[request.param](stack)


def strange_transports(stack: ExitStack) -> list[Any]:
    """None of them has anybody at its other end."""
    closed, other = socket.socketpair(socket.AF_UNIX)
    closed.close()
    other.close()
    sockets = [
        stack.enter_context(socket.socket(family, kind))
        for family in (socket.AF_UNIX, socket.AF_INET)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    ]
    gone = converse(End(False), End(True)).served.made[0].transport
    gone.connectionLost()
    nobody = converse(End(False, svid=None), End(True, demands_certificate=False))
    return [
        *(None, 0, "", b"\xff", object(), [], Exception("x")),
        *map(Transport, [None, "socket", 3, closed, *sockets]),
        *(gone, nobody.served.made[0].transport),
    ]


def secrets_of(case: Case) -> list[str]:
    shown = case.good.headers.getRawHeaders(HEADER, [])
    return [*shown, *filter(None, [case.good.token])]


def attempt(attestor: Any, evidence: Evidence) -> Any:
    """What it makes of it; an error of ours is an answer too."""
    try:
        return outcome(attestor.attest(evidence))
    except PkiError as error:
        return error


def test_it_keeps_the_interface(case: Case) -> None:
    verifyObject(IAttestor, case.attestor)
    assert case.attestor.name in ATTESTORS


def test_every_attestor_of_the_house_is_tried_here() -> None:
    assert {attestor.of(MEANS).name for attestor in HOUSE} < ATTESTORS.keys()


def test_its_class_tells_its_kinds_without_one_being_made(case: Case) -> None:
    assert type(case.attestor).kinds == case.attestor.kinds
    assert all(isinstance(kind, SelectorKind) for kind in case.attestor.kinds)


def test_it_finds_selectors_of_its_own_kinds_only(case: Case) -> None:
    kinds = {kind.name for kind in case.attestor.kinds}
    assert {
        selector.kind for selector in outcome(case.attestor.attest(case.good)).selectors
    } <= kinds


@pytest.mark.parametrize("name", MADE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(kind=st.text(max_size=20), data=st.binary(max_size=100))
def test_a_challenge_is_made_or_not_and_nothing_breaks(name: str, kind: str, data: bytes) -> None:
    attestor = MADE[name]
    try:
        wanted = outcome(attestor.challenge(kind, data))
    except PkiError:
        return
    assert wanted is None or isinstance(wanted, bytes)


def test_evidence_of_another_kind_is_none(case: Case, stack: ExitStack) -> None:
    for make in ATTESTORS.values():
        other = make(stack)
        if other.attestor.name != case.attestor.name:
            assert outcome(case.attestor.attest(other.good)) is None
    assert outcome(case.attestor.attest(Evidence())) is None


def test_evidence_of_another_kind_beside_it_changes_nothing(case: Case, stack: ExitStack) -> None:
    alone = outcome(case.attestor.attest(case.good))
    if case.attestor.name == "token":
        both = evolve(case.good, process=a_process(stack).good.process)
    else:
        both = evolve(case.good, token=JoinToken.generate().text)
    if case.attestor.name != "secret":
        both = evolve(both, headers=Headers({HEADER: ["wrong"], "Authorization": ["Bearer x"]}))
    both = evolve(both, attestation=AttestationData("other", b"x"))
    assert outcome(case.attestor.attest(both)) == alone


def test_garbage_attests_nothing_and_raises_nothing_but_our_errors(
    case: Case, stack: ExitStack
) -> None:
    for transport in strange_transports(stack):
        for token in (None, "", "mj1_", "\0\n\ud800", "x" * 100_000):
            got = attempt(case.attestor, evolve(Evidence.of(transport), token=token))
            assert got is None or isinstance(got, PkiError), (transport, got)
    for values in ([b""], [b"\xff\0"], [b"x" * 100_000], [SECRET, SECRET], ["x"] * 1000):
        evidence = Evidence(headers=Headers({HEADER: values}))
        got = attempt(case.attestor, evolve(evidence, attestation=AttestationData("", b"\xff")))
        assert got is None or isinstance(got, PkiError), (values, got)


@pytest.mark.parametrize("make", ATTESTORS.values(), ids=ATTESTORS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(token=st.text() | st.from_regex(r"\Amj1_[a-z2-7]{40}\Z"))
def test_no_text_is_taken_for_a_token(
    make: Callable[[ExitStack], Case], token: str, stack: ExitStack
) -> None:
    case = make(stack) if make is a_token else Case(Record().attestor, Evidence, print)
    got = attempt(case.attestor, Evidence(token=token))
    assert isinstance(got, NoProof) if make is a_token else got is None


def test_good_evidence_gives_selectors_that_an_entry_can_name(case: Case) -> None:
    attestation = outcome(case.attestor.attest(case.good))
    assert attestation.selectors
    assert all(Selector.parse(str(s)) == s for s in attestation.selectors)


def test_equal_evidence_gives_equal_attestations(case: Case) -> None:
    first, second = (outcome(case.attestor.attest(evolve(case.good))) for _ in range(2))
    assert first == second


def test_what_it_proves_can_be_shown(case: Case) -> None:
    attestation = outcome(case.attestor.attest(case.good))
    shown = [attestation.proof, *map(str, attestation.selectors), repr(attestation)]
    assert all(text.isprintable() and text.isascii() for text in shown)
    for secret in secrets_of(case):
        assert not any(secret in text for text in (*shown, repr(case.good), repr(case.attestor)))


def test_what_was_good_and_is_no_more_is_refused_in_a_sentence(case: Case) -> None:
    assert outcome(case.attestor.attest(case.good)) is not None
    case.spoil()
    error = attempt(case.attestor, case.good)
    assert isinstance(error, NoProof)
    assert str(error).isprintable()
    assert all(str(problem).isprintable() for problem in error.problems)
    assert not any(secret in f"{error!r} {error.problems}" for secret in secrets_of(case))


def test_nothing_is_left_open(case: Case) -> None:
    garbage = evolve(Evidence.of(Transport(None)), token="mj1_")
    attempt(case.attestor, case.good)
    before = open_descriptors()
    for _ in range(100):
        attempt(case.attestor, case.good)
        attempt(case.attestor, garbage)
    case.spoil()
    after_spoiling = open_descriptors()
    for _ in range(100):
        attempt(case.attestor, case.good)
    assert open_descriptors() == after_spoiling <= before


def test_out_of_descriptors_it_attests_no_more_than_else(case: Case) -> None:
    import resource

    whole = outcome(case.attestor.attest(case.good))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    hog = [os.dup(0)]
    while hog[-1] <= highest:
        hog.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hog[-1] + 1, hard))
    try:
        got = attempt(case.attestor, case.good)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in hog:
            os.close(descriptor)
    assert isinstance(got, NoProof) or got.selectors <= whole.selectors
