"""SDS over a real socket, with a client of our own; the recipes have a real Envoy."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, evolve

from pki.errors import PkiError
from tests.authorities import MESH, OTHER
from tests.twisted_mesh.grpc.sockets import channel_to, own_reactor, run, served, turn_until
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.workload.fake_workloads import (
    FakeWorkloads,
    bundles,
    identity,
    refusing,
    snapshot,
)
from twisted_mesh.grpc.client import ClientCall, GrpcChannel
from twisted_mesh.grpc.server import GrpcServer
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.workload import sds
from twisted_mesh.workload.interface import Refusal, Snapshot
from twisted_mesh.workload.sds_messages import (
    DELTA_SECRETS,
    FETCH_SECRETS,
    STREAM_SECRETS,
    Content,
    DeltaRequest,
    DeltaResponse,
    Request,
    Response,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "SDS.md"
BACKEND = "spiffe://mesh.local/service/backend"
AWAY = PkiError("the CA is away")


@define(eq=False)
class Mesh:
    workloads: FakeWorkloads
    channel: GrpcChannel
    log: RecordingLog

    def open(self, path: str) -> ClientCall:
        return run(self.channel.open(path))

    def fetch(self, *names: str) -> dict[str, Content]:
        return by_name(run(self.channel.unary(FETCH_SECRETS, Request(names).encode())))

    def said(self, event: str) -> str:
        turn_until(lambda: self.log.count(event), self.log.all_text)
        return self.log.text(event)


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    workloads, log = FakeWorkloads(), RecordingLog()
    monkeypatch.setattr(sds, "log", log)
    methods = sds.SecretService(workloads).methods()
    server = GrpcServer(own_reactor(), methods, admit=workloads.caller)
    with served(server) as path, channel_to(path) as channel:
        yield Mesh(workloads, channel, log)
    assert not workloads.following


def by_name(data: bytes | None) -> dict[str, Content]:
    assert data is not None
    contents = map(Content.parse, Response.parse(data).secrets)
    return {content.name: content for content in contents}


def received(call: ClientCall) -> Response:
    data = run(call.receive())
    assert data is not None
    return Response.parse(data)


def received_delta(call: ClientCall) -> DeltaResponse:
    data = run(call.receive())
    assert data is not None
    return DeltaResponse.parse(data)


def ended(call: ClientCall) -> GrpcError:
    with pytest.raises(GrpcError) as caught:
        run(call.receive())
    return caught.value


def test_a_stream_is_told_its_secrets_and_each_rotation(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    names = ("default", "ROOTCA")
    call.send(Request(names, node="web-1").encode())
    first = received(call)
    assert len(first.secrets) == 2
    call.send(Request(names, first.version, first.nonce).encode())
    mesh.workloads.tell(snapshot())
    mesh.workloads.tell(snapshot(identity(serial=1)))
    second = received(call)
    (rotated,) = map(Content.parse, second.secrets)
    assert rotated.name == "default"
    assert rotated.chain == identity(serial=1).svid.chain_pem()
    assert second.nonce != first.nonce
    call.cancel()


def test_a_change_of_the_crls_is_pushed_as_a_bundle(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    call.send(Request(("default", "ALL")).encode())
    received(call)
    known = evolve(bundles(), crls={MESH: [b"newer"]})
    mesh.workloads.tell(evolve(snapshot(), bundles=known))
    (changed,) = map(Content.parse, received(call).secrets)
    assert changed.name == "ALL"
    call.cancel()


def test_a_delta_stream_is_told_what_has_changed(mesh: Mesh) -> None:
    call = mesh.open(DELTA_SECRETS)
    call.send(DeltaRequest(("default", "nobody")).encode())
    first = received_delta(call)
    assert ([secret.name for secret in first.secrets], first.removed) == (["default"], ("nobody",))
    call.send(DeltaRequest(("ROOTCA",), nonce=first.nonce).encode())
    assert [secret.name for secret in received_delta(call).secrets] == ["ROOTCA"]
    again = mesh.open(DELTA_SECRETS)
    versions = {secret.name: secret.version for secret in first.secrets}
    again.send(DeltaRequest(("default", "mesh.local"), versions=versions).encode())
    assert [secret.name for secret in received_delta(again).secrets] == ["mesh.local"]
    call.cancel()
    again.cancel()


def test_one_answer_is_for_whoever_asks_once(mesh: Mesh) -> None:
    assert mesh.fetch("default", "ALL").keys() == {"default", "ALL"}
    assert mesh.fetch().keys() == {BACKEND, "spiffe://mesh.local"}
    with pytest.raises(GrpcError, match=f"no secret nobody here: there is {BACKEND}") as caught:
        mesh.fetch("default", "nobody")
    assert caught.value.status is Status.NOT_FOUND


def test_one_answer_waits_until_it_is_known_what_there_is(mesh: Mesh) -> None:
    mesh.workloads.now = None
    call = run(mesh.channel.stream(FETCH_SECRETS, Request(("default",)).encode()))
    turn_until(lambda: mesh.workloads.following)
    mesh.workloads.tell(snapshot())
    assert by_name(run(call.receive())).keys() == {"default"}
    assert run(call.receive()) is None


@pytest.mark.parametrize(
    ("final", "status"),
    [(True, Status.PERMISSION_DENIED), (False, Status.UNAVAILABLE)],
    ids=["for good", "for now"],
)
def test_one_answer_says_why_there_is_none(mesh: Mesh, final: bool, status: Status) -> None:
    mesh.workloads.now = refusing(AWAY, final=final, known=bundles())
    with pytest.raises(GrpcError, match="the CA is away") as caught:
        mesh.fetch("default")
    assert caught.value.status is status


def test_a_stream_waits_while_the_ca_is_away_and_gets_what_is_known(mesh: Mesh) -> None:
    mesh.workloads.now = refusing(AWAY, final=False, known=bundles())
    call = mesh.open(DELTA_SECRETS)
    call.send(DeltaRequest(("default", "ROOTCA"), node="web-1").encode())
    answer = received_delta(call)
    assert ([secret.name for secret in answer.secrets], answer.removed) == (["ROOTCA"], ())
    mesh.workloads.tell(refusing(AWAY, final=False, known=bundles()))
    mesh.workloads.tell(snapshot())
    assert [secret.name for secret in received_delta(call).secrets] == ["default"]
    assert mesh.log.count("sds-waits") == 1
    assert "waits for its identity: the CA is away" in mesh.log.text("sds-waits")
    call.cancel()


def test_who_has_no_right_any_more_is_told_so_and_why(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    call.send(Request(("default",)).encode())
    received(call)
    mesh.workloads.tell(refusing(PkiError("its entry is gone"), final=True))
    error = ended(call)
    assert (error.status, error.text) == (Status.PERMISSION_DENIED, "its entry is gone")


@pytest.mark.parametrize("path", [STREAM_SECRETS, DELTA_SECRETS], ids=["stream", "delta"])
def test_who_has_too_many_streams_is_told_so_and_does_not_wait_for_ever(
    mesh: Mesh, path: str
) -> None:
    full = Refusal(PkiError("64 streams are open"), is_final=False, is_last=True)
    mesh.workloads.tell(Snapshot(None, (), full))
    error = ended(mesh.open(path))
    assert (error.status, error.text) == (Status.UNAVAILABLE, "64 streams are open")


@pytest.mark.parametrize("path", [STREAM_SECRETS, DELTA_SECRETS], ids=["stream", "delta"])
def test_who_comes_again_without_an_entry_waits_for_it_and_gets_it_at_once(
    mesh: Mesh, path: str
) -> None:
    """By its own pause an Envoy would come half a minute later."""
    kind = Request if path == STREAM_SECRETS else DeltaRequest
    nothing = refusing(PkiError("no entry is met"), final=True, known=bundles())
    for _ in range(2):
        mesh.workloads.now = nothing
        first = mesh.open(path)
        first.send(kind(("default", "ROOTCA")).encode())
        assert ended(first).text == "no entry is met"
        again = mesh.open(path)
        again.send(kind(("default", "ROOTCA")).encode())
        turn_until(lambda: mesh.workloads.following)
        mesh.workloads.tell(nothing)
        mesh.workloads.tell(snapshot())
        data = run(again.receive())
        assert data is not None
        answer = (Response if path == STREAM_SECRETS else DeltaResponse).parse(data)
        assert len(answer.secrets) == 2
        again.cancel()
        turn_until(lambda: not mesh.workloads.following)


def test_who_waits_is_told_another_reason_and_the_end(mesh: Mesh) -> None:
    mesh.workloads.now = refusing(PkiError("no entry is met"), final=True, known=bundles())

    def asked() -> ClientCall:
        call = mesh.open(STREAM_SECRETS)
        call.send(Request(("ROOTCA",)).encode())
        return call

    assert ended(asked()).text == "no entry is met"
    waiting = asked()
    turn_until(lambda: mesh.workloads.following)
    mesh.workloads.tell(refusing(PkiError("another came nearer"), final=True, known=bundles()))
    assert ended(waiting).text == "another came nearer"
    mesh.workloads.tell(refusing(PkiError("the agent is banned"), final=True))
    for _ in range(2):
        assert ended(asked()).text == "the agent is banned"


def test_a_refusal_is_logged_with_envoys_words_and_without_what_they_quote(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    call.send(Request(("default",), node="web\x1b[31m-1").encode())
    answer = received(call)
    key = identity().svid.key.to_pem().decode()
    words = f"Failed to load\ncertificate chain {key}" + "x" * 1000
    call.send(Request(("default",), "", answer.nonce, words).encode())
    said = mesh.said("sds-refused")
    assert (
        "Envoy web\\x1b[31m-1 (process 1) did not take default, and keeps what it has: Failed"
        in said
    )
    assert all(line not in said for line in key.splitlines()[1:-1])
    assert "\n" not in said and len(said) < 700
    mesh.workloads.tell(snapshot())
    mesh.workloads.tell(snapshot(identity(serial=1)))
    assert received(call).nonce == "2"
    call.cancel()


def test_a_client_that_refuses_everything_does_not_fill_the_log(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    for number in range(200):
        nonce = str(number) if number else ""
        names = ("default",) if number % 2 else ("ROOTCA",)
        call.send(Request(names, "", nonce, f"no good, {number}").encode())
        received(call)
    refusals = [e["log_level"].name for e in mesh.log.events if e["event"] == "sds-refused"]
    assert len(refusals) >= 190
    assert 10 <= refusals.count("warn") <= 100
    call.cancel()


def test_a_refusal_by_delta_is_logged_too(mesh: Mesh) -> None:
    call = mesh.open(DELTA_SECRETS)
    call.send(DeltaRequest(("default",)).encode())
    answer = received_delta(call)
    call.send(DeltaRequest(nonce=answer.nonce, error="no good").encode())
    assert "did not take default, and keeps what it has: no good" in mesh.said("sds-refused")
    call.cancel()


def test_an_unknown_name_is_logged_once_and_waited_for(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    call.send(Request(("spiffe://mesh.local/service/shop",), node="web").encode())
    said = mesh.said("sds-unknown")
    assert (
        "asks for the secret spiffe://mesh.local/service/shop, and gets it once it may have it"
        in said
    )
    assert f"now it may have {BACKEND}, spiffe://mesh.local (" in said
    mesh.workloads.tell(snapshot(identity(serial=1)))
    mesh.workloads.tell(snapshot(identity("shop")))
    received(call)
    assert mesh.log.count("sds-unknown") == 1
    call.cancel()


def test_when_crls_are_gone_the_log_says_what_that_means(mesh: Mesh) -> None:
    mesh.workloads.now = snapshot(foreign=[OTHER])
    call = mesh.open(STREAM_SECRETS)
    call.send(Request(("ALL",)).encode())
    received(call)
    known = evolve(bundles(OTHER), crls={MESH: [b"newer"]})
    mesh.workloads.tell(evolve(snapshot(), bundles=known))
    received(call)
    said = mesh.said("sds-without-crls")
    assert "no CRLs of other.example any more" in said
    call.cancel()


@pytest.mark.parametrize(
    ("path", "kind"),
    [(STREAM_SECRETS, Request), (DELTA_SECRETS, DeltaRequest), (FETCH_SECRETS, Request)],
    ids=["stream", "delta", "fetch"],
)
def test_what_is_no_request_ends_the_call(
    mesh: Mesh, path: str, kind: type[Request | DeltaRequest]
) -> None:
    clusters = kind(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster")
    for data in (b"\xff", clusters.encode()):
        call = mesh.open(path)
        call.send(data)
        call.done()
        assert ended(call).status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("path", [STREAM_SECRETS, DELTA_SECRETS])
def test_what_was_for_a_process_is_not_for_the_one_in_its_place(mesh: Mesh, path: str) -> None:
    call = mesh.open(path)
    call.send(Request(("default",)).encode())
    turn_until(lambda: mesh.workloads.following)
    mesh.workloads.who.gone = True
    mesh.workloads.tell(snapshot(identity(serial=1)))
    while True:
        try:
            assert run(call.receive()) is not None
        except GrpcError as error:
            assert error.status is Status.PERMISSION_DENIED
            break
    with pytest.raises(GrpcError, match="connect anew"):
        mesh.fetch("default")


def test_who_reads_nothing_is_told_the_newest_state_and_none_between(mesh: Mesh) -> None:
    """However often secrets rotate, one answer is under way: the rest is made when it can be sent."""
    large = evolve(bundles(), crls={MESH: [b"c" * 400_000]})
    call = mesh.open(STREAM_SECRETS)
    call.send(Request(("ALL",)).encode())
    turn_until(lambda: mesh.workloads.following)
    for number in range(50):
        crls = {MESH: [bytes([number]) * 400_000]}
        mesh.workloads.tell(evolve(snapshot(), bundles=evolve(large, crls=crls)))
    nonces = []
    expected = Content.parse(
        Response.parse(run(mesh.channel.unary(FETCH_SECRETS, Request(("ALL",)).encode()))).secrets[
            0
        ]
    )
    while True:
        answer = received(call)
        nonces.append(answer.nonce)
        if Content.parse(answer.secrets[0]) == expected:
            break
    assert len(nonces) <= 4
    call.cancel()


def test_a_client_that_ends_its_half_is_answered_in_kind(mesh: Mesh) -> None:
    call = mesh.open(STREAM_SECRETS)
    call.done()
    assert run(call.receive()) is None


def test_each_line_of_the_document_names_a_test_that_there_is() -> None:
    here = Path(__file__).parent
    recipes = here.parents[1] / "recipes"
    files = {
        "S": here / "test_sds_stream.py",
        "O": here / "test_sds_offer.py",
        "D": here / "test_sds.py",
        "E": recipes / "test_envoy_sds.py",
    }
    rows = re.findall(r"\| ([SODE]) `(test_\w+)` \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(rows) > 25
    for file, name in rows:
        assert f"def {name}(" in files[file].read_text(), name
