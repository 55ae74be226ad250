"""Whatever a CA answers, or does not, its client says it in one sentence and with the CA's own reasons."""

import errno
import json
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, NoRouteError
from twisted.internet.task import Cooperator
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem
from pki.issuing.csr import build_csr
from pki.policy.principal import Principal, anonymous
from pki.svid.bundle import BadBundle
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import X509Svid, certificates_pem
from tests.authorities import BACKEND, HOUR, MESH, NOW, key, mesh
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, Door, attestors_of, ca_rig, result_of
from tests.twisted_mesh.talking import Wire
from twisted_mesh.api import client as ca_client_module
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.api.trust_question import TrustQuestion
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.cli.status import UNREACHABLE, status_of
from twisted_mesh.http.address import BadCaUrl, CaAddress
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.identity.bootstrap import ca_security
from twisted_mesh.tls.alerts import RefusedByPeer, Unreachable

SOCKET = CaAddress.parse("unix:/run/ca.sock")
CSR = build_csr(key(9), BACKEND)
ROOT_PEM = certificates_pem([mesh().root.certificate])


def test_over_https_it_has_to_be_known_whose_root_to_believe() -> None:
    with pytest.raises(BadCaUrl, match="--ca-file"):
        CaClient(MemoryReactorClock(), CaAddress.parse("https://ca"))


def test_over_https_it_proves_itself_by_what_it_was_given_last() -> None:
    security = ca_security(MemoryReactorClock(), mesh().bundle)
    client = CaClient(MemoryReactorClock(), CaAddress.parse("https://ca"), security)
    svid = X509Svid.assemble((mesh().leaf(), *mesh().issuing.intermediates), key(9))
    certified = []
    for shown in (None, svid, None):
        client.present(shown)
        current = security.contexts.current()
        assert current is not None
        certified.append(SSL.Connection(current[0]).get_certificate() is not None)
    assert certified == [False, True, False]


def test_over_the_socket_the_kernel_proves_who_it_is() -> None:
    Rig().client.present(None)


# One request.

#: Both ends are ours, as those of a CA of our own user are.
CONNECTED, _OTHER_END = socket.socketpair()


class UnixWire(Wire):
    def getHandle(self) -> socket.socket:
        return CONNECTED


@define(eq=False)
class Rig:
    """A client whose connections the test answers by hand."""

    address: CaAddress = SOCKET
    reactor: Any = field(factory=MemoryReactorClock)
    client: CaClient = field(init=False)
    outcome: list[Any] = field(factory=list)
    wire: Wire = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.client = CaClient(self.reactor, self.address, timeout=10)

    def ask(self, coroutine: Any) -> "Rig":
        Deferred.fromCoroutine(coroutine).addBoth(self.outcome.append)
        return self

    def connect(self) -> "Rig":
        _, factory, *_ = self.reactor.unixClients[-1]
        self.wire = UnixWire(self.reactor)
        self.wire.join(factory.buildProtocol(None))
        self.reactor.advance(0)
        return self

    def reply(self, status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> Any:
        """What the client makes of that answer: its result, or the error that it raises."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        protocol: Any = self.wire.protocol
        protocol.dataReceived("\r\n".join((*lines, "", "")).encode() + body)
        self.reactor.advance(0)
        return self.result

    @property
    def result(self) -> Any:
        (found,) = self.outcome
        return found.value if isinstance(found, Failure) else found


@pytest.fixture(autouse=True)
def bodies_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """FileBodyProducer would wait for turns of the global reactor."""
    monkeypatch.setattr(
        ca_client_module,
        "FileBodyProducer",
        lambda file: FileBodyProducer(file, Cooperator(scheduler=_Now)),
    )


class _Now:
    """A call that has been made."""

    def __init__(self, call: Any) -> None:
        call()

    def cancel(self) -> None:
        """There is nothing left to cancel."""


def bundle_asked() -> Rig:
    rig = Rig()
    return rig.ask(rig.client.bundle(MESH)).connect()


def signing() -> Rig:
    rig = Rig()
    return rig.ask(rig.client.sign(CSR, BACKEND, timedelta(minutes=90))).connect()


def trust_asked(after: int = 0, store: str = "") -> Rig:
    rig = Rig()
    return rig.ask(rig.client.trust(TrustQuestion(after, store, log_size=0))).connect()


def test_a_request_to_sign_says_what_is_wanted() -> None:
    head, _, body = signing().wire.value().partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/sign HTTP/1.1\r\n")
    assert b"Host: localhost" in head
    assert b"application/json" in head
    assert json.loads(body) == {"csr": CSR.decode(), "requested_id": str(BACKEND), "ttl": "90m"}


def test_without_a_wish_for_a_lifetime_none_is_sent() -> None:
    rig = Rig()
    rig.ask(rig.client.sign(CSR, BACKEND)).connect()
    assert b'"ttl"' not in rig.wire.value()


def test_the_chain_comes_back_leaf_first() -> None:
    ca = mesh()
    leaf = ca.leaf()
    answer = {
        "certificate": certificates_pem([leaf]).decode(),
        "chain": [certificates_pem([ca.issuing.certificate]).decode()],
        "more": "than was asked for",
    }
    assert signing().reply(201, answer) == (leaf, ca.issuing.certificate)


def test_the_bundle_comes_back() -> None:
    bundle = mesh().bundle
    assert bundle_asked().reply(200, bundle.to_jwks()) == bundle


def test_a_bundle_without_a_root_is_no_bundle() -> None:
    error = bundle_asked().reply(200, {"keys": []})
    assert isinstance(error, BadBundle)
    assert "without a usable root" in str(error)


def test_the_news_are_asked_for_from_a_position_of_a_store() -> None:
    assert b"GET /api/v1/trust?after=0&log=0 HTTP" in trust_asked().wire.value()
    assert b"GET /api/v1/trust?after=7&log=0&store=ab-1 HTTP" in trust_asked(7, "ab-1").wire.value()
    assert b"?after=7&log=0&store=a%20%26b%C3%A9 HTTP" in trust_asked(7, "a &bé").wire.value()


REVOKED = {
    "issuer": "ab",
    "serial": "1F",
    "revoked_at": "2026-11-23T10:00:00Z",
    "reason": "superseded",
    "expires_at": "2026-11-23T11:00:00Z",
}


def news(**changes: Any) -> dict[str, Any]:
    answer = {"store": "s", "generation": 3, "bundles": {}, "revocations": [REVOKED | changes]}
    return answer | {name: value for name, value in changes.items() if name in answer}


def test_the_news_come_back() -> None:
    bundle = mesh().bundle
    found = trust_asked().reply(200, news(bundles={"mesh.local": bundle.to_jwks_object()}))
    assert (found.store, found.position) == ("s", 3)
    assert list(found.bundles) == [bundle]
    (revoked,) = found.revocations
    assert (revoked.issuer, revoked.serial, revoked.reason) == ("ab", 31, Reason.SUPERSEDED)
    assert (revoked.revoked_at, revoked.expires_at) == (NOW, NOW + HOUR)


def test_a_reason_from_the_future_is_still_a_revocation() -> None:
    (revoked,) = trust_asked().reply(200, news(reason="boredom")).revocations
    assert revoked.reason is Reason.UNSPECIFIED


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": "x"},
        {"serial": ""},
        {"serial": "-1"},
        {"serial": "0x1f"},
        {"serial": "1_f"},
        {"revoked_at": "soon"},
        {"expires_at": "2026-11-23"},
        {"bundles": {"Mesh Local": {"keys": []}}},
        {"bundles": {"mesh.local": []}},
        {"generation": "3"},
    ],
)
def test_news_that_cannot_be_understood_are_no_news(changes: dict[str, Any]) -> None:
    assert isinstance(trust_asked().reply(200, news(**changes)), Malformed)


@pytest.mark.parametrize(
    "changes",
    [{"generation": -1}, {"generation": 2**63}, {"store": ""}, {"store": "x" * 201}],
    ids=str,
)
def test_a_position_that_could_not_be_asked_from_is_no_news(changes: dict[str, Any]) -> None:
    assert isinstance(trust_asked().reply(200, news() | changes), Malformed)


@pytest.mark.parametrize(("told", "more"), [({}, True), ({"more": False}, False)])
def test_a_ca_that_does_not_say_so_may_have_more(told: dict[str, Any], more: bool) -> None:
    assert trust_asked().reply(200, news() | told).more is more


# Waiting for news.


NOTHING: dict[str, Any] = {"store": "s", "generation": 3, "bundles": {}, "revocations": []}


def waiting(rig: Rig | None = None) -> Rig:
    rig = rig or Rig()
    rig.outcome.clear()
    return rig.ask(rig.client.trust(TrustQuestion(3, "s", log_size=0, wait=25)))


def test_the_ca_is_told_how_long_it_may_wait() -> None:
    rig = waiting().connect()
    assert b"?after=3&log=0&store=s&wait=25s HTTP" in rig.wire.value()
    rig.reactor.advance(34)
    assert rig.outcome == []
    found = rig.reply(200, NOTHING | {"waited": 25, "more": False})
    assert (found.waited, found.more, found.revocations) == (25, False, ())


def test_a_wait_without_an_answer_ends() -> None:
    rig = waiting().connect()
    rig.reactor.advance(35)
    assert isinstance(rig.result, Unreachable)
    assert rig.wire.aborted


def test_the_next_wait_is_on_the_same_connection() -> None:
    rig = waiting().connect()
    rig.reply(200, NOTHING)
    rig.wire.clear()
    waiting(rig)
    rig.reactor.advance(0)
    assert rig.wire.value().startswith(b"GET /api/v1/trust")
    assert len(rig.reactor.unixClients) == 1
    assert rig.reply(200, NOTHING).position == 3


def test_other_questions_have_connections_of_their_own() -> None:
    rig = waiting().connect()
    rig.reply(200, NOTHING)
    rig.outcome.clear()
    rig.ask(rig.client.bundle(MESH))
    assert len(rig.reactor.unixClients) == 2


def identity(number: int) -> X509Svid:
    return X509Svid.assemble((mesh().leaf(), *mesh().issuing.intermediates), key(9))


def test_a_connection_is_not_used_under_the_next_identity() -> None:
    rig = Rig()
    first, second = identity(1), identity(2)
    rig.client.present(first)
    waiting(rig).connect()
    rig.reply(200, NOTHING)
    rig.client.present(first)
    assert not rig.wire.disconnecting
    rig.client.present(second)
    assert rig.wire.disconnecting
    waiting(rig)
    assert len(rig.reactor.unixClients) == 2


def test_a_connection_that_was_in_use_is_not_used_under_the_next_identity_either() -> None:
    rig = Rig()
    rig.client.present(identity(1))
    waiting(rig).connect()
    rig.client.present(identity(2))
    rig.reply(200, NOTHING)
    waiting(rig)
    assert len(rig.reactor.unixClients) == 2
    rig.reactor.advance(15)
    assert rig.wire.disconnecting, "nor kept for long"


def test_a_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    rig = waiting().connect()
    rig.reply(200, NOTHING)
    waiting(rig)
    rig.wire.lose(ConnectionDone())
    rig.reactor.advance(0)
    rig.connect()
    assert rig.reply(200, NOTHING).position == 3


# No.


def test_a_refusal_has_every_reason_of_the_ca() -> None:
    problems = [Problem("expired", "it ended", "renew it"), Problem("weak-key", "too short")]
    error = signing().reply(422, problem_body(422, "refused", "", problems))
    assert isinstance(error, CaRefused)
    assert error.status == 422
    assert error.problems == tuple(problems)
    assert str(error) == "expired: it ended (renew it); weak-key: too short"


def test_a_refusal_without_reasons_has_its_code_and_detail() -> None:
    error = signing().reply(401, problem_body(401, "no-proof", "who are you?"))
    assert isinstance(error, CaRefused)
    assert error.problems == (Problem("no-proof", "who are you?"),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"null",
        b'{"code": "x"}',
        b'{"problems": 5}',
        b'{"problems": [5]}',
        b'{"problems": [{}]}',
        b"\xff",
        b"[" * 100000,
    ],
)
def test_a_refusal_in_other_words_has_its_status(body: bytes) -> None:
    error = signing().reply(502, body)
    assert isinstance(error, CaRefused)
    assert (error.status, str(error)) == (502, "ca-refused: the CA answered 502")


def test_a_code_of_another_version_can_still_be_read() -> None:
    for answer in (
        {"code": "new-rule", "detail": "it breaks a rule of later"},
        {"problems": [{"code": "new-rule", "detail": "it breaks a rule of later", "remedy": ""}]},
    ):
        error = signing().reply(422, answer)
        assert isinstance(error, CaRefused)
        (problem,) = error.problems
        assert problem == Problem(Code.CA_REFUSED, "new-rule: it breaks a rule of later")
        assert str(error) == "ca-refused: new-rule: it breaks a rule of later"


def test_nothing_that_a_ca_says_drives_the_readers_terminal() -> None:
    nasty = "\x1b[31m\n\u202e"
    for answer in (
        {"code": nasty, "detail": nasty},
        {"problems": [{"code": nasty, "detail": nasty, "remedy": nasty}]},
    ):
        error = signing().reply(400, answer)
        assert isinstance(error, CaRefused)
        assert str(error).isprintable()
        assert all(p.code.isprintable() for p in error.problems)


# What is no CA, and what does not answer.


@pytest.mark.parametrize(
    "body",
    [b"", b"Welcome to nginx!", b"{}", b"[]", b'{"certificate": 1}', b"\xff\xfe", b"[" * 100000],
)
def test_what_is_no_ca_is_said_to_be_none(body: bytes) -> None:
    error = signing().reply(200, body)
    assert isinstance(error, Malformed)
    assert str(error) == "what answers at unix:/run/ca.sock is no CA of the mesh"


def test_a_long_answer_is_read_somewhere_else() -> None:
    """It comes from a CA that has proven who it is, and may be 32 MiB of whatever."""
    for size, times in ((1000, 0), (200_000, 1)):
        for asked in (bundle_asked, signing, trust_asked):
            rig = asked()
            elsewhere: list[int] = []

            def defer(call: Any, data: bytes, noted: list[int] = elsewhere) -> "Deferred[Any]":
                noted.append(len(data))
                return maybeDeferred(call, data)

            rig.client.defer = defer
            assert isinstance(rig.reply(200, b" " * size + b"[]"), Malformed)
            assert len(elsewhere) == times


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN CERTIFICATE-----\n"])
def test_a_certificate_that_is_none_is_refused(pem: str) -> None:
    assert isinstance(signing().reply(201, {"certificate": pem, "chain": []}), Malformed)


def test_a_redirection_is_not_followed() -> None:
    rig = signing()
    error = rig.reply(302, b"", Location="http://localhost:1/")
    assert isinstance(error, Malformed)
    assert len(rig.reactor.unixClients) == 1
    assert rig.reactor.tcpClients == []


def test_an_answer_that_is_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_client_module, "_MAX_ANSWER", 1000)
    rig = signing()
    assert isinstance(rig.reply(200, b"x" * 1001), PkiError)
    assert not rig.wire.connected


def test_a_ca_that_is_not_there_says_how_to_start_it() -> None:
    rig = Rig()
    rig.ask(rig.client.bundle(MESH))
    _, factory, *_ = rig.reactor.unixClients[-1]
    factory.clientConnectionFailed(None, Failure(ConnectError(string="no such file")))
    assert isinstance(rig.result, Unreachable)
    assert "no CA answers at unix:/run/ca.sock" in str(rig.result)
    assert "twistd -n mesh-ca" in str(rig.result)


def test_a_socket_that_is_not_for_this_user_is_told_apart() -> None:
    rig = Rig()
    rig.ask(rig.client.bundle(MESH))
    _, factory, *_ = rig.reactor.unixClients[-1]
    factory.clientConnectionFailed(None, Failure(ConnectError(errno.EACCES, "Permission denied")))
    assert isinstance(rig.result, Unreachable)
    assert str(rig.result).startswith(
        "no CA answers at unix:/run/ca.sock: this user may not use the socket (have it opened"
    )


@pytest.mark.parametrize(
    ("date", "clock"),
    [
        ("Mon, 23 Nov 2026 10:00:00 GMT", NOW),
        ("Mon, 23 Nov 2026 12:00:00 +0200", NOW),
        ("yesterday", None),
        ("Mon, 23 Nov 20266666666 10:00:00 GMT", None),
        ("", None),
    ],
)
def test_the_cas_clock_is_read_from_its_answers(date: str, clock: datetime | None) -> None:
    rig = Rig()
    rig.ask(rig.client.roots()).connect()
    assert rig.client.date is None
    rig.reply(200, ROOT_PEM, Date=date)
    assert rig.client.date == clock
    assert rig.result == (mesh().root.certificate,)


def test_a_ca_that_hangs_up_is_not_told_to_be_started() -> None:
    rig = signing()
    rig.wire.lose(ConnectionLost())
    assert isinstance(rig.result, RefusedByPeer)
    assert rig.result.problems[0].code == Code.INTERRUPTED
    assert status_of(rig.result) == UNREACHABLE
    assert "unix:/run/ca.sock took the connection and closed it without a word" in str(rig.result)
    assert "start it" not in str(rig.result)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n{"])
def test_a_ca_that_is_too_slow_is_given_up_whatever_it_has_said(said: bytes) -> None:
    rig = signing()
    protocol: Any = rig.wire.protocol
    protocol.dataReceived(said)
    rig.reactor.pump([1] * 9)
    assert rig.outcome == []
    rig.reactor.pump([1, 1])
    assert isinstance(rig.result, Unreachable)
    assert not rig.wire.connected
    assert rig.reactor.getDelayedCalls() == []


def test_a_ca_that_does_not_take_the_connection_is_given_up_too() -> None:
    rig = Rig()
    rig.ask(rig.client.bundle(MESH))
    rig.reactor.pump([1] * 11)
    assert isinstance(rig.result, Unreachable)


def test_over_tcp_the_reason_is_told_too() -> None:
    rig = Rig(CaAddress.parse("http://127.0.0.1:1"))
    rig.ask(rig.client.bundle(MESH))
    _, _, factory, *_ = rig.reactor.tcpClients[-1]
    factory.clientConnectionFailed(None, Failure(NoRouteError(errno.EHOSTUNREACH, "no route")))
    rig.reactor.pump([0.1] * 10)
    assert isinstance(rig.result, Unreachable)
    assert str(rig.result).startswith(
        "no CA answers at http://127.0.0.1:1: no way leads there from here (No route to host)"
    )


KEYS = st.sampled_from(
    ["certificate", "chain", "keys", "store", "generation", "bundles", "revocations", "problems"]
)


@given(
    st.sampled_from([200, 201, 400, 503]),
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([signing, trust_asked, bundle_asked]),
)
def test_no_answer_at_all_raises_anything_but_an_error_of_ours(
    status: int, body: bytes, asked: Any
) -> None:
    found = asked().reply(status, body)
    assert not isinstance(found, Exception) or isinstance(found, PkiError)


# With the CA itself.


@define(eq=False)
class Joined:
    """A client and the CA's API, joined by hand."""

    ca: CaRig
    caller: Principal = ADMIN
    rig: Rig = field(factory=Rig)

    def ask(self, coroutine: Any) -> Any:
        rig = self.rig
        rig.outcome.clear()
        rig.ask(coroutine).connect()
        api = CaApi(self.ca.ca, Door(self.caller), attestors_of(self.ca))
        site = BoundedSite(api, rig.reactor)
        server = Wire(rig.reactor)
        server.join(site.buildProtocol(None))
        asked, protocol = rig.wire.value(), rig.wire.protocol
        server.protocol.dataReceived(asked)  # type: ignore[union-attr]
        protocol.dataReceived(server.value())  # type: ignore[union-attr]
        rig.reactor.advance(0)
        if isinstance(rig.result, Exception):
            raise rig.result
        return rig.result


@pytest.fixture
def joined() -> Iterator[Joined]:
    with ca_rig() as ca:
        yield Joined(ca)


def test_client_and_ca_mean_the_same(joined: Joined) -> None:
    client = joined.rig.client
    leaf, issuing = joined.ask(client.sign(CSR, BACKEND, timedelta(minutes=30)))
    assert leaf.not_valid_after_utc == NOW + timedelta(minutes=30)
    assert issuing == joined.ca.home.issuing.certificate
    bundle = joined.ask(client.bundle(MESH))
    assert bundle.roots == (joined.ca.home.root.certificate,)
    before = joined.ask(client.trust(TrustQuestion()))
    assert before.revocations == ()
    result_of(joined.ca.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.KEY_COMPROMISE))
    after = joined.ask(client.trust(TrustQuestion(before.position, before.store)))
    assert list(after.revocations) == joined.ca.told


def test_the_client_understands_why_the_ca_says_no(joined: Joined) -> None:
    client = joined.rig.client
    with pytest.raises(CaRefused) as refused:
        joined.ask(client.sign(CSR, MESH.member("mesh", "ca"), timedelta(days=9)))
    assert refused.value.status == 422
    codes = {problem.code for problem in refused.value.problems}
    assert codes == {"ttl-out-of-range", "reserved-id", "wrong-uri"}
    joined.caller = anonymous("unix:uid:1")
    with pytest.raises(CaRefused, match="no-proof") as refused:
        joined.ask(client.sign(CSR, BACKEND))
    assert refused.value.status == 401


def test_a_signature_of_the_ca_belongs_to_the_key_of_the_csr(joined: Joined) -> None:
    leaf, *_ = joined.ask(joined.rig.client.sign(CSR, BACKEND))
    assert leaf.public_key() == key(9).public_key
