"""An identity from a Workload API: over a real socket, in one process with who serves it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from pki.codes import Code
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, key_id
from pki.svid.bundle import BundleSet
from tests.authorities import (
    HOUR,
    MESH,
    NOW,
    OTHER,
    forge,
    forge_issuing,
    forge_root,
    mesh,
    sign_crl,
)
from tests.twisted_mesh.grpc.sockets import own_reactor, run, served, turn_until
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.workload.fake_workloads import (
    FakeWorkloads,
    bundles,
    identity,
    judge,
    refusing,
)
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.server import GrpcServer, Method, streaming
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.identity.provider import IssuerCheck
from twisted_mesh.interfaces import TrustUpdate
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.trust.trust import Trust
from twisted_mesh.workload.address import WorkloadAddress
from twisted_mesh.workload.api_answers import x509_svids
from twisted_mesh.workload.chosen import Chosen
from twisted_mesh.workload.interface import Bundles, Snapshot, WorkloadSvid
from twisted_mesh.workload.messages import FETCH_X509_SVID, X509SvidMessage, X509SvidResponse
from twisted_mesh.workload.source import WorkloadSource
from twisted_mesh.workload.workload_api import WorkloadApi

BACKEND = MESH.member("service", "backend")


def at_once(call: Any, /, *arguments: Any, **named: Any) -> Deferred[Any]:
    """In place of a thread."""
    return maybeDeferred(call, *arguments, **named)


@define(eq=False)
class Rig:
    """A source, and what it tells."""

    path: Path
    chosen: Chosen = field(factory=Chosen)
    log: RecordingLog = field(factory=RecordingLog)
    source: WorkloadSource = field(init=False)
    fresh: int = 0
    lost: list[PkiError] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.source = WorkloadSource(
            own_reactor(),
            WorkloadAddress(str(self.path)),
            self.chosen,
            now=lambda: NOW,
            log=self.log,
            defer=at_once,
        )
        self.source.on_fresh = self._more
        self.source.on_loss = self.lost.append

    def _more(self) -> None:
        self.fresh += 1

    def obtain(self) -> Any:
        found = run(self.source.obtain(KeyAlgorithm.EC_P256))
        self.source.renewed()
        return found

    def told(self, wait: int = 0) -> TrustUpdate:
        return run(self.source.revocations(wait))

    def refusal(self) -> PkiError:
        with pytest.raises(PkiError) as caught:
            run(self.source.obtain(KeyAlgorithm.EC_P256))
        return caught.value


@contextmanager
def following(methods: Any, chosen: Chosen | None = None, admit: Any = None) -> Iterator[Rig]:
    """A source of a server with those methods."""
    more = {} if admit is None else {"admit": admit}
    with ExitStack() as stack:
        path = stack.enter_context(served(GrpcServer(own_reactor(), methods, **more)))
        rig = Rig(path, chosen or Chosen())
        stack.callback(rig.source.close)
        yield rig


@contextmanager
def of(workloads: FakeWorkloads, chosen: Chosen | None = None) -> Iterator[Rig]:
    """A source of our own Workload API."""
    api = WorkloadApi(workloads, judge, lambda: NOW)
    with following(api.methods(), chosen, workloads.caller) as rig:
        yield rig


def saying(*answers: bytes | GrpcError) -> dict[str, Method]:
    """A server that says each of these, one to a stream; after the last it holds the stream."""
    left = list(answers)

    async def follow(call: Call, request: bytes) -> None:
        if left:
            answer = left.pop(0)
            if isinstance(answer, GrpcError):
                raise answer
            call.send(answer)
        await call.over()

    return {FETCH_X509_SVID: streaming(follow)}


def snapshot(
    *svids: WorkloadSvid, crls: Sequence[bytes] = (), known: Bundles | None = None
) -> Snapshot:
    return Snapshot(evolve(known or bundles(), crls={MESH: crls}), svids or (identity(),))


def message(**changes: Any) -> bytes:
    """What is good but for the changes of its one SVID."""
    good = X509SvidResponse.parse(x509_svids(snapshot()))
    return evolve(good, svids=[evolve(good.svids[0], **changes)]).encode()


def test_the_first_answer_brings_an_identity_and_whom_to_believe() -> None:
    with of(FakeWorkloads(snapshot(known=bundles(OTHER)))) as rig:
        found = rig.obtain()
    assert found.svid.spiffe_id == BACKEND
    assert found.svid.chain == identity().svid.chain
    assert found.svid.key.public_key.public_numbers() == (
        identity().svid.key.public_key.public_numbers()  # type: ignore[union-attr]
    )
    assert {b.trust_domain: b.roots for b in found.bundles} == {
        at: mesh(at).bundle.roots for at in (MESH, OTHER)
    }
    assert found.issued_at == NOW


def test_a_rotation_is_pushed() -> None:
    workloads = FakeWorkloads(snapshot())
    with of(workloads) as rig:
        rig.obtain()
        before = rig.fresh
        workloads.tell(snapshot(identity(serial=1)))
        turn_until(lambda: rig.fresh > before)
        assert rig.obtain().svid.chain == identity(serial=1).svid.chain


def test_what_is_in_use_is_not_handed_out_again() -> None:
    workloads = FakeWorkloads(snapshot())
    with of(workloads) as rig:
        rig.obtain()
        waiting = Deferred.fromCoroutine(rig.source.obtain(KeyAlgorithm.EC_P256))
        workloads.tell(snapshot(known=bundles(OTHER)))
        turn_until(lambda: len(list(rig.told().bundles or ())) == 2)
        assert not waiting.called
        workloads.tell(snapshot(identity(serial=1)))
        turn_until(lambda: waiting.called)


def test_what_was_refused_is_handed_out_again() -> None:
    with of(FakeWorkloads(snapshot())) as rig:
        for _ in range(2):
            run(rig.source.obtain(KeyAlgorithm.EC_P256))


def test_a_bundle_that_changes_is_told_at_once() -> None:
    workloads = FakeWorkloads(snapshot(known=bundles(OTHER)))
    with of(workloads) as rig:
        rig.obtain()
        rig.told()
        waiting = Deferred.fromCoroutine(rig.source.revocations(45))
        turn_until(lambda: rig.source._waiting)
        assert not waiting.called
        workloads.tell(snapshot())
        turn_until(lambda: waiting.called)
        assert list(waiting.result.bundles.bundles) == [MESH]


def test_without_news_the_question_ends_when_it_was_to() -> None:
    with of(FakeWorkloads(snapshot())) as rig:
        rig.obtain()
        rig.told()
        update = rig.told(1)
    assert update.waited >= 1
    assert not update.revocations


def test_a_crl_counts() -> None:
    serials = [leaf.serial_number for leaf in identity().svid.chain[:1]]
    workloads = FakeWorkloads(snapshot())
    with of(workloads) as rig:
        rig.obtain()
        assert not rig.told().revocations
        workloads.tell(snapshot(crls=[sign_crl(mesh().issuing, serials=serials)]))
        (revocation,) = rig.told(45).revocations
        assert revocation.serial == serials[0]
        assert len(run(rig.source.crls()).crls) == 1
        # It is told once, whatever else comes.
        workloads.tell(
            snapshot(
                known=bundles(OTHER), crls=[sign_crl(mesh().issuing, serials=serials, number=1)]
            )
        )
        turn_until(lambda: len(list(rig.told().bundles or ())) == 2)
        assert not rig.told().revocations


@pytest.mark.parametrize(
    ("crl", "event"),
    [
        pytest.param(b"nothing", "crl-refused", id="garbage"),
        pytest.param(
            sign_crl(forge_root(77), issuer_name=mesh().issuing.certificate.subject),
            "crl-refused",
            id="another-key",
        ),
        pytest.param(
            sign_crl(mesh().issuing, this_update=NOW - 2 * HOUR, next_update=NOW - HOUR),
            "crl-refused",
            id="stale",
        ),
        pytest.param(sign_crl(mesh(OTHER).issuing), "crl-stranger", id="stranger"),
    ],
)
def test_a_crl_that_cannot_be_believed_is_told_of_once(crl: bytes, event: str) -> None:
    workloads = FakeWorkloads(snapshot(crls=[crl]))
    with of(workloads) as rig:
        rig.obtain()
        assert not rig.told().revocations
        workloads.tell(snapshot(identity(serial=1), crls=[crl]))
        turn_until(lambda: rig.fresh > 1)
        assert rig.log.count(event) == 1, rig.log.all_text()
        assert rig.source.doubt() is None


def test_a_crl_of_an_unknown_issuer_counts_once_a_peer_shows_that() -> None:
    issuing = forge_issuing(mesh().root, 91)
    leaf = forge(issuing)
    crl = sign_crl(issuing, serials=[leaf.serial_number])
    with of(FakeWorkloads(snapshot(crls=[crl]))) as rig:
        rig.obtain()
        assert not rig.told().revocations
        judge = Judge(lambda: NOW, Trust(bundles=mesh().bundles))
        clock = Clock()
        store = TrustStore(judge, ConnectionRegistry(), clock, lambda: NOW, rig.log)
        check = IssuerCheck(rig.source, store)
        other = identity().svid
        assert not run(check.objections([*other.chain, mesh().root.certificate], 1))
        path = [leaf, issuing.certificate, mesh().root.certificate]
        (objection,) = run(check.objections(path, 1))
        assert objection.code == Code.REVOKED
        assert store.trust.revocations.find(
            key_id(issuing.certificate.public_key()), leaf.serial_number
        )
        assert len(run(rig.source.crls()).crls) == 1


def test_a_crl_that_has_lapsed_is_a_doubt() -> None:
    crl = sign_crl(mesh().issuing, next_update=NOW + HOUR)
    with of(FakeWorkloads(snapshot(crls=[crl]))) as rig:
        rig.obtain()
        assert rig.source.doubt() is None
        rig.source.crl_lists.now = lambda: NOW + 2 * HOUR
        doubt = rig.source.doubt()
    assert doubt is not None
    assert doubt.code == Code.STALE_REVOCATION


def test_the_identity_is_chosen_by_its_id() -> None:
    many = FakeWorkloads(snapshot(identity(), identity("web")))
    web = MESH.member("service", "web")
    with of(many, Chosen(web)) as rig:
        assert rig.obtain().svid.spiffe_id == web
    with of(many) as rig:
        assert rig.obtain().svid.spiffe_id == BACKEND


def test_what_is_not_there_is_named_with_what_is() -> None:
    with of(FakeWorkloads(snapshot()), Chosen(MESH.member("service", "web"))) as rig:
        refused = rig.refusal()
    assert "service/web" in str(refused)
    assert f"it has {BACKEND}" in str(refused)
    assert refused.problems[0].code == Code.NOT_AUTHORIZED


def test_an_identity_that_is_taken_away_is_lost_and_may_come_again() -> None:
    web = MESH.member("service", "web")
    workloads = FakeWorkloads(snapshot(identity(), identity("web")))
    with of(workloads, Chosen(web)) as rig:
        rig.obtain()
        workloads.tell(snapshot(identity()))
        turn_until(lambda: rig.lost)
        assert "service/web" in str(rig.lost[0])
        with pytest.raises(PkiError):
            rig.told()
        workloads.tell(snapshot(identity(), identity("web")))
        turn_until(lambda: rig.fresh == 2)
        assert rig.obtain().svid.spiffe_id == web


def test_a_final_no_takes_it_away_with_the_reason() -> None:
    workloads = FakeWorkloads(snapshot())
    with of(workloads) as rig:
        rig.obtain()
        workloads.tell(refusing(PkiError("no entry fits unix:uid:1000"), final=True))
        turn_until(lambda: rig.lost)
        assert "no entry fits unix:uid:1000" in str(rig.lost[0])
        assert "PERMISSION_DENIED" in str(rig.refusal())


def test_an_agent_that_is_away_takes_nothing_away() -> None:
    workloads = FakeWorkloads(snapshot())
    with of(workloads) as rig:
        rig.obtain()
        workloads.tell(refusing(PkiError("the CA is away"), final=False))
        turn_until(lambda: rig.log.count("workload-api-away"))
        assert not rig.lost
        assert rig.refusal().problems[0].code == Code.UNREACHABLE
        workloads.tell(snapshot())
        turn_until(lambda: rig.log.count("workload-api-answers"))
        assert rig.told().bundles is not None


def test_after_a_stream_that_ended_there_is_another() -> None:
    good = x509_svids(snapshot())
    with following(saying(GrpcError(Status.UNAVAILABLE, "starting"), good)) as rig:
        assert "starting" in str(rig.refusal())
        turn_until(lambda: rig.fresh)
        assert rig.obtain().svid.spiffe_id == BACKEND


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(b"\xff\xff\xff", "no X509SVIDResponse", id="no-protobuf"),
        pytest.param(b"", "has no SVID in it", id="empty"),
        pytest.param(message(spiffe_id="backend"), "no SPIFFE ID", id="no-id"),
        pytest.param(
            message(spiffe_id=str(MESH.member("other"))), "calls spiffe://", id="another-id"
        ),
        pytest.param(message(x509_svid=b"\x30\x03abc"), "no certificate", id="no-certificate"),
        pytest.param(message(x509_svid=b"\x30\x7fabc"), "cut short", id="cut-short"),
        pytest.param(message(x509_svid=b""), "there is none", id="no-chain"),
        pytest.param(message(x509_svid_key=b"abc"), "key", id="no-key"),
        pytest.param(message(bundle=b"\x30\x03abc"), "the bundle of mesh.local", id="no-bundle"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_in_a_sentence(answer: bytes, said: str) -> None:
    with following(saying(answer)) as rig:
        assert said in str(rig.refusal())


def test_another_keys_certificate_is_refused() -> None:
    other = X509SvidResponse.parse(x509_svids(snapshot(identity(serial=3)))).svids[0]
    with following(saying(message(x509_svid_key=other.x509_svid_key))) as rig:
        assert "was issued for another key" in str(rig.refusal())


def test_garbage_after_something_good_changes_nothing() -> None:
    async def follow(call: Call, request: bytes) -> None:
        call.send(x509_svids(snapshot()))
        call.send(b"\xff\xff")
        await call.over()

    with following({FETCH_X509_SVID: streaming(follow)}) as rig:
        rig.obtain()
        turn_until(lambda: rig.log.count("workload-api-away"))
        assert not rig.lost


def test_a_bad_federated_bundle_is_passed_over() -> None:
    good = X509SvidResponse.parse(x509_svids(snapshot(known=bundles(OTHER))))
    bad = evolve(
        good,
        federated_bundles={**good.federated_bundles, "spiffe://bad.example": b"abc", "x": b""},
    )
    with following(saying(bad.encode())) as rig:
        assert {b.trust_domain for b in rig.obtain().bundles} == {MESH, OTHER}
        assert rig.log.count("bundle-refused") == 2


def test_what_federation_says_of_our_own_domain_does_not_count() -> None:
    good = X509SvidResponse.parse(x509_svids(snapshot(known=bundles(OTHER))))
    foreign = good.federated_bundles[str(OTHER.id)]
    bad = evolve(good, federated_bundles={str(MESH.id): foreign})
    with following(saying(bad.encode())) as rig:
        assert rig.obtain().bundles == BundleSet.of(mesh(MESH).bundle)


def test_a_socket_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "s")
    refused = rig.refusal()
    assert str(tmp_path / "s") in str(refused)
    assert "no socket is there (start the agent" in str(refused)
    assert refused.problems[0].code == Code.UNREACHABLE
    workloads = FakeWorkloads(snapshot())
    api = WorkloadApi(workloads, judge, lambda: NOW)
    server = GrpcServer(own_reactor(), api.methods(), admit=workloads.caller)
    port = own_reactor().listenUNIX(str(tmp_path / "s"), server)
    try:
        turn_until(lambda: rig.fresh)
        assert rig.obtain().svid.spiffe_id == BACKEND
    finally:
        rig.source.close()
        run(server.drain(0.1))
        run(partial(_stopped, port)())


async def _stopped(port: Any) -> None:
    await port.stopListening()


def test_who_is_silent_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_mesh.workload.source.PATIENCE", 0.1)
    workloads = FakeWorkloads(None)
    with of(workloads) as rig:
        assert "has not answered within 0.1 s" in str(rig.refusal())
        workloads.tell(snapshot())
        turn_until(lambda: rig.fresh)
        assert rig.obtain().svid.spiffe_id == BACKEND


def test_one_that_speaks_no_workload_api_is_named() -> None:
    with following({}) as rig:
        assert "UNIMPLEMENTED" in str(rig.refusal())


def test_a_root_that_is_sent_along_is_left_out() -> None:
    good = X509SvidResponse.parse(x509_svids(snapshot()))
    svid: X509SvidMessage = good.svids[0]
    with following(saying(message(x509_svid=svid.x509_svid + svid.bundle))) as rig:
        assert rig.obtain().svid.chain == identity().svid.chain


def test_an_agent_of_another_user_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_mesh.api.ca_user.peer_uid", lambda handle: 4711)
    workloads = FakeWorkloads(snapshot())
    with of(workloads) as rig:
        refused = rig.refusal()
        assert refused.problems[0].code == Code.FOREIGN_CA
        assert "runs as user 4711, and root may be the agent there: name its user" in str(refused)
        assert not workloads.following
        monkeypatch.undo()
        turn_until(lambda: rig.fresh)
        assert rig.obtain().svid.spiffe_id == BACKEND


def test_a_socket_in_the_directory_of_another_user_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CaUser, "known", {4712})
    with of(FakeWorkloads(snapshot())) as rig:
        assert "may be the agent there: name its user with --ca-user, or another --source" in str(
            rig.refusal()
        )
