"""What the Workload API does beyond the letter: processes that go, callers that do not read, the CA's words."""

import json
import re
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jwt
import pytest
from attrs import evolve
from h2.settings import SettingCodes
from twisted.internet.defer import Deferred

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused
from pki.jwt_svid.claims import BadAudience
from pki.jwt_svid.validator import validate
from pki.keys import jwk_members, key_id
from tests.authorities import BACKEND, HOUR, MESH, NOW, key
from tests.twisted_mesh.grpc.raw import Caller, Served
from tests.twisted_mesh.grpc.sockets import turn_until
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.workload.api_caller import REQUESTS, STREAMS, calling
from tests.twisted_mesh.workload.fake_workloads import (
    FakeWorkloads,
    bundles,
    identity,
    snapshot,
    token,
)
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.workload import api_answers, messages
from twisted_mesh.workload.api_answers import x509_bundles, x509_svids
from twisted_mesh.workload.interface import Bundles, JwtSvid, Refusal, Snapshot
from twisted_mesh.workload.messages import (
    JwtSvidRequest,
    ValidateJwtSvidRequest,
    X509BundlesResponse,
    X509SvidResponse,
)
from twisted_mesh.workload.workload_api import WorkloadApi

NAMES = [path.rpartition("/")[2] for path in REQUESTS]


@pytest.mark.parametrize("path", REQUESTS, ids=NAMES)
def test_a_process_that_is_gone_gets_nothing(path: str) -> None:
    workloads = FakeWorkloads(tokens=[token()])
    workloads.who.gone = True
    with calling(workloads) as caller:
        refusal = caller.refusal(path)
        assert refusal.status is Status.PERMISSION_DENIED
        assert "another program" in refusal.text


@pytest.mark.parametrize("path", STREAMS, ids=[path.rpartition("/")[2] for path in STREAMS])
def test_a_stream_ends_at_the_first_news_after_its_process_is_gone(path: str) -> None:
    with calling() as caller:
        stream = caller.stream(path)
        stream.next()
        caller.workloads.who.gone = True
        caller.workloads.tell(snapshot(identity(serial=1)))
        with pytest.raises(GrpcError) as ended:
            stream.next()
        assert ended.value.status is Status.PERMISSION_DENIED
        turn_until(lambda: not caller.workloads.following)


def test_a_process_that_goes_while_its_token_is_made_does_not_get_it() -> None:
    made: Deferred[None] = Deferred()

    class Slow(FakeWorkloads):
        async def jwt_svids(self, *asked: object) -> list[JwtSvid]:
            await made
            return [token()]

    with calling(Slow()) as caller:
        stream = caller.stream(messages.FETCH_JWT_SVID)
        turn_until(lambda: caller.server.open_calls)
        caller.workloads.who.gone = True
        caller.channel._reactor.callLater(0.01, made.callback, None)
        with pytest.raises(GrpcError) as ended:
            stream.next()
        assert ended.value.status is Status.PERMISSION_DENIED


def test_a_caller_who_cannot_be_attested_comes_back_later() -> None:
    trouble = PkiError("this system does not say who connected")
    with calling(FakeWorkloads(trouble=trouble)) as caller:
        refusal = caller.refusal()
        assert (refusal.status, refusal.text) == (Status.UNAVAILABLE, str(trouble))


def test_answers_wait_for_the_first_snapshot() -> None:
    with calling(FakeWorkloads(now=None, tokens=[token()])) as caller:
        streams = [caller.stream(path) for path in REQUESTS]
        turn_until(lambda: len(caller.workloads.following) == len(REQUESTS))
        caller.workloads.tell(snapshot())
        assert all(stream.next() for stream in streams)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PkiError("the CA cannot be reached"), Status.UNAVAILABLE),
        (BadAudience("an audience has at most 512 characters"), Status.INVALID_ARGUMENT),
        (Refused([Problem(Code.NOT_AUTHORIZED, "the agent was banned")]), Status.PERMISSION_DENIED),
        (Refused([Problem(Code.REVOKED, "the agent was revoked")]), Status.PERMISSION_DENIED),
        (Refused([Problem(Code.BUSY, "too much is under way")]), Status.UNAVAILABLE),
    ],
    ids=["away", "audience", "banned", "revoked", "busy"],
)
def test_what_the_ca_says_to_the_wish_for_a_token_is_told(error: PkiError, status: Status) -> None:
    with calling(FakeWorkloads(tokens=error)) as caller:
        refusal = caller.refusal(messages.FETCH_JWT_SVID)
        assert (refusal.status, refusal.text) == (status, str(error))


def test_an_audience_that_no_token_can_be_for_is_not_asked_the_ca() -> None:
    """The CA's own answer to a long one may be that the request is too large, which looks as if it could pass."""
    with calling() as caller:
        asked = JwtSvidRequest(["a" * 100_000]).encode()
        refusal = caller.refusal(messages.FETCH_JWT_SVID, asked)
        assert refusal.status is Status.INVALID_ARGUMENT
        assert "at most 512 characters" in refusal.text
        assert not caller.workloads.asked


def test_no_token_at_all_is_a_denial() -> None:
    with calling(FakeWorkloads(tokens=[])) as caller:
        assert caller.status(messages.FETCH_JWT_SVID) is Status.PERMISSION_DENIED


def test_an_identity_that_is_none_is_an_invalid_argument() -> None:
    with calling() as caller:
        asked = JwtSvidRequest(["web"], "mesh.local/service/backend").encode()
        refusal = caller.refusal(messages.FETCH_JWT_SVID, asked)
        assert refusal.status is Status.INVALID_ARGUMENT
        assert "is not a SPIFFE ID" in refusal.text


@pytest.mark.parametrize("path", REQUESTS, ids=NAMES)
def test_a_request_that_is_no_message_is_refused(path: str) -> None:
    with calling() as caller:
        assert caller.status(path, b"\xff\xff\xff") is Status.INTERNAL


def test_a_bundle_of_jwt_keys_that_is_none_is_not_handed_on() -> None:
    ours = bundles()
    for document in (b"{}", b"[]", b"", b'{"keys": [1]}', b'{"keys": 1}', b"[" * 100_000):
        now = Snapshot(Bundles(MESH, ours.x509, {MESH: document}), (identity(),))
        with calling(FakeWorkloads(now)) as caller:
            assert caller.status(messages.FETCH_JWT_BUNDLES) is Status.UNAVAILABLE


def test_an_identity_that_is_there_is_served_while_there_is_a_passing_trouble() -> None:
    passing = Refusal(PkiError("the CA cannot be reached"), is_final=False)
    with calling(FakeWorkloads(Snapshot(bundles(), (identity(),), passing))) as caller:
        assert caller.stream().x509().svids


def test_whoever_was_refused_for_good_is_served_nothing_that_is_still_there() -> None:
    final = Refusal(PkiError("the agent was banned"), is_final=True)
    with pytest.raises(GrpcError, match="banned"):
        x509_svids(Snapshot(bundles(), (identity(),), final))


def test_a_stream_that_is_not_read_keeps_one_answer() -> None:
    workloads = FakeWorkloads()
    methods = WorkloadApi(workloads, validate, lambda: NOW).methods()
    served = Served()
    served.server.methods = methods
    caller = Caller(served, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1}, reads=False)
    for connection in served.server.connections:
        connection.methods, connection.caller = methods, workloads.who
    answer = caller.call(messages.FETCH_X509_SVID, b"", messages.SECURITY_HEADER)
    rotations = [snapshot(identity(serial=serial)) for serial in (1, 2)]
    tracemalloc.start()
    try:
        for _ in range(500):
            for rotation in rotations:
                workloads.tell(rotation)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    caller.h2.increment_flow_control_window(2**20, 1)
    caller.turn()
    assert answer.messages[1:] == [x509_svids(rotations[-1])]


def test_crls_that_no_client_could_take_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    log = RecordingLog()
    monkeypatch.setattr(api_answers, "log", log)
    ours = bundles()
    now = Snapshot(evolve(ours, crls={MESH: [b"x" * 5_000_000]}), (identity(),))
    assert X509SvidResponse.parse(x509_svids(now)).crl == []
    assert X509SvidResponse.parse(x509_svids(now)).svids
    assert X509BundlesResponse.parse(x509_bundles(now)).crl == []
    assert "clients take 4194304" in log.text("workload-crls-left-out")


# Tokens, by the real judge.


def signed(
    claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, by: str = "jwt"
) -> str:
    """A token for ``web`` that is good for an hour, but for what is said otherwise."""
    said = {"sub": str(BACKEND), "aud": "web", "iat": _at(NOW), "exp": _at(NOW + HOUR)}
    stated = {"alg": "ES256", "kid": key_id(key("jwt").public_key), "typ": "JWT"}
    private = key(by).private_key
    alg = (header or {}).get("alg", "ES256")
    return jwt.encode(
        {**said, **(claims or {})},
        private if alg != "none" else None,
        algorithm=alg,
        headers={**stated, **(header or {})},
    )


def _at(moment: datetime) -> int:
    return int(moment.timestamp())


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: signed(header={"alg": "none"}), "alg is 'none'"),
        (lambda: signed(by="another"), "signature|signed"),
        (lambda: signed(header={"kid": key_id(key("another").public_key)}), "key"),
        (lambda: signed({"exp": _at(NOW)}), "expired|not good any more|ended"),
        (lambda: signed({"aud": "db"}), "web"),
        (lambda: signed({"aud": []}), "aud"),
        (lambda: signed(header={"jku": "https://evil.example/keys"}), "jku"),
        (lambda: signed({"sub": "spiffe://other.example/service/a"}), "other.example"),
        (lambda: "no.token", "three parts"),
    ],
    ids=["none", "forged", "kid", "expired", "audience", "nobody", "jku", "domain", "text"],
)
def test_a_token_that_is_not_good_is_an_invalid_argument(
    token: Callable[[], str], reason: str
) -> None:
    with calling(FakeWorkloads(_with_keys()), validate) as caller:
        asked = ValidateJwtSvidRequest("web", token()).encode()
        refusal = caller.refusal(messages.VALIDATE_JWT_SVID, asked)
        assert refusal.status is Status.INVALID_ARGUMENT
        assert re.search(reason, refusal.text)


def test_a_good_token_comes_back_with_all_its_claims() -> None:
    with calling(FakeWorkloads(_with_keys()), validate) as caller:
        asked = ValidateJwtSvidRequest("web", signed({"team": ["a", {"b": 1.5}]})).encode()
        answer = caller.stream(messages.VALIDATE_JWT_SVID, asked).valid()
    assert answer.spiffe_id == str(BACKEND)
    assert answer.claims == {
        "sub": str(BACKEND),
        "aud": "web",
        "iat": _at(NOW),
        "exp": _at(NOW + HOUR),
        "team": ["a", {"b": 1.5}],
    }


def _with_keys() -> Snapshot:
    """Our trust domain's tokens are signed by ``key("jwt")``."""
    public = key("jwt").public_key
    member = {"use": "jwt-svid", "kid": key_id(public), **(jwk_members(public) or {})}
    jwks = json.dumps({"keys": [member]}).encode()
    return Snapshot(Bundles(MESH, bundles().x509, {MESH: jwks}), (identity(),))
