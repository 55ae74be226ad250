"""What every attestor does, whatever the evidence is that it looks at."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from attrs import asdict, evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from zope.interface.verify import verifyObject

from pki.errors import PkiError
from pki.policy.join_token import JoinToken
from pki.policy.policy import NoProof
from pki.policy.selector import Selector, SelectorKind, declare
from tests.authorities import MESH, NOW
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.badge import KINDS
from tests.twisted_mesh.attest.cases import Case, of_platforms
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
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.attest.registry import ATTESTORS as HOUSE
from twisted_mesh.attest.registry import Attestors, declare_kinds
from twisted_mesh.evidence.interface import AttestationData


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
PLATFORMS = dict(of_platforms())
ATTESTORS = {
    "process": a_process,
    "svid": an_svid,
    "token": a_token,
    "secret": a_secret,
    **PLATFORMS,
}


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
        declare_kinds()
        for kind in KINDS:
            declare(kind)
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
    good = case.good
    shown = good.headers.getRawHeaders(HEADER, [])
    data = [] if good.attestation is None else [good.attestation.data.decode().strip('"')]
    return [*shown, *filter(None, [good.token]), *data]


def proven(attestation: Any) -> Any:
    """All of it but what counts once, which a challenge or a fresh token makes another each time."""
    facts = asdict(attestation, recurse=False)
    return {name: fact for name, fact in facts.items() if not name.startswith("claim")}


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
    if both.attestation is None:
        both = evolve(both, attestation=AttestationData("other", b"1"))
    assert proven(outcome(case.attestor.attest(both))) == proven(alone)


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
    assert proven(first) == proven(second)


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
    assert isinstance(got, PkiError) or got.selectors <= whole.selectors


# Of platforms.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", PLATFORMS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=JSON)
def test_no_data_is_taken_for_evidence(name: str, data: Any, stack: ExitStack) -> None:
    attestor = PLATFORMS[name](stack).attestor
    shown = AttestationData(attestor.name, msgspec.json.encode(data))
    got = attempt(attestor, Evidence(attestation=shown, csr="no CSR"))
    assert isinstance(got, PkiError), got
    assert str(got).isprintable() and len(str(got)) < 2000


@pytest.mark.parametrize("name", PLATFORMS)
def test_whatever_is_cut_off_of_good_evidence_spoils_it(name: str, stack: ExitStack) -> None:
    case = PLATFORMS[name](stack)
    for cut in (1, 2, 10, 100):
        good = case.good
        assert good.attestation is not None
        data = good.attestation.data
        text = data[:-1][:-cut] + b'"' if data.startswith(b'"') else data[:-cut]
        spoilt = evolve(good, attestation=evolve(good.attestation, data=text))
        assert isinstance(attempt(case.attestor, spoilt), PkiError)
    assert outcome(case.attestor.attest(case.good)) is not None


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_makes_challenges_of_its_own_kind_alone(name: str, stack: ExitStack) -> None:
    attestor = PLATFORMS[name](stack).attestor
    wanted = outcome(attestor.challenge(name, b"null"))
    assert wanted is None or (wanted.isascii() and wanted.decode().isprintable())
    assert outcome(attestor.challenge("other", b"null")) is None
    assert type(attestor).table == attestor.name == name
