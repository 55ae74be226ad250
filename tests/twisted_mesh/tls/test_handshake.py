"""What the seam lets in and what it does not, and what each side is told, handshake by handshake."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from OpenSSL import SSL

from pki.errors import Problem
from pki.keys import KeyAlgorithm
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from tests.authorities import (
    DAY,
    HOUR,
    MESH,
    OTHER,
    Mesh,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
)
from tests.twisted_mesh.tls.wires import (
    TODAY,
    Conversation,
    End,
    Talker,
    converse,
    good_svid,
    home,
    in_memory,
    svid_of,
)
from twisted_mesh.testing import names
from twisted_mesh.tls import verify, x509_store_ctx
from twisted_mesh.tls.alerts import PeerRefused, problem_of
from twisted_mesh.tls.farewell import CLOSE_TIMEOUT
from twisted_mesh.tls.hostname import hostname_problem
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.reviewer import Reviewer

CHAIN = home().issuing.intermediates
LIVES = {"start": TODAY - HOUR, "end": TODAY + HOUR}
CA_LIVES = {"start": TODAY - HOUR, "end": TODAY + DAY}


def presenting(leaf: x509.Certificate, *intermediates: x509.Certificate) -> X509Svid:
    return svid_of(leaf, intermediates or CHAIN)


def issued(**overrides: object) -> X509Svid:
    return presenting(forge(home().issuing, **{**LIVES, **overrides}))  # type: ignore[arg-type]


def of_another_ca() -> X509Svid:
    root = forge_root("another root", **CA_LIVES)
    issuing = forge_issuing(root, "another issuing CA", **CA_LIVES)
    return svid_of(forge(issuing, **LIVES), issuing.intermediates)


def a_ca_as_leaf() -> X509Svid:
    ca = home().issuing
    return svid_of(ca.certificate, (), key("issuing CA of mesh.local"))


#: Bad clients: what they present, the code that the server logs, and that which they are told: what they see in their
#: own chain, or else what the alert says.
BAD: dict[str, tuple[Callable[[], X509Svid | None], str, str]] = {
    "no certificate": (lambda: None, "no-certificate", "no-certificate"),
    "expired": (lambda: issued(end=TODAY - timedelta(seconds=1)), "expired", "expired"),
    "not yet valid": (
        lambda: issued(start=TODAY + HOUR, end=TODAY + 2 * HOUR),
        "not-yet-valid",
        "not-yet-valid",
    ),
    "another CA with the same names": (of_another_ca, "unknown-authority", "unknown-authority"),
    "another trust domain": (
        lambda: good_svid(home(OTHER)),
        "unknown-trust-domain",
        "unknown-authority",
    ),
    "no extended key usage": (
        lambda: issued(replace={x509.ExtendedKeyUsage: None}),
        "wrong-usage",
        "wrong-usage",
    ),
    "only serverAuth": (
        lambda: issued(
            replace={
                x509.ExtendedKeyUsage: (
                    x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]),
                    False,
                )
            }
        ),
        "wrong-usage",
        "wrong-usage",
    ),
    "two URI names": (
        lambda: issued(
            replace={
                x509.SubjectAlternativeName: (
                    names("spiffe://mesh.local/service/a", "spiffe://mesh.local/service/b"),
                    False,
                )
            }
        ),
        "not-an-svid",
        "not-an-svid",
    ),
    "an https name": (
        lambda: issued(uris=["https://mesh.local/service/a"]),
        "not-an-svid",
        "not-an-svid",
    ),
    "a trust domain's own name": (
        lambda: issued(uris=["spiffe://mesh.local"]),
        "not-an-svid",
        "not-an-svid",
    ),
    "a CA as leaf": (a_ca_as_leaf, "not-an-svid", "not-an-svid"),
    "the leaf alone": (
        lambda: svid_of(forge(home().issuing, **LIVES), ()),
        "incomplete-chain",
        "incomplete-chain",
    ),
    "not allowed here": (
        lambda: good_svid(None, "batch", "job"),
        "not-authorized",
        "bad-certificate",
    ),
}


def refused(conversation: Conversation, code: str) -> None:
    """Nobody's application heard of it, and the server's log says why."""
    assert conversation.served.made[0].connected_times == 0
    assert len(conversation.server.registry) == 0
    (event,) = [e for e in conversation.server.log.events if e.get("event") == "peer-refused"]
    assert code in event["codes"].split(", ")
    assert conversation.server_wire.connected is False


@pytest.mark.parametrize("name", BAD)
def test_a_bad_client_is_refused_inside_the_handshake_and_told_why(name: str) -> None:
    make, code, told = BAD[name]
    conversation = converse(End(False, make()), End(True, allow="spiffe://mesh.local/service/*"))
    refused(conversation, code)
    assert problem_of(conversation.client_error).code == told


@pytest.mark.parametrize("name", BAD)
def test_without_the_cffi_layer_the_verdicts_are_the_same(name: str) -> None:
    make, code, _ = BAD[name]
    server = End(True, allow="spiffe://mesh.local/service/*", exact_alerts=False)
    conversation = converse(End(False, make()), server)
    # Where OpenSSL refuses before the public API has shown the leaf, there are only OpenSSL's words.
    refused(conversation, "unknown-authority" if name == "another trust domain" else code)


@pytest.mark.parametrize("exact_alerts", [True, False])
def test_a_good_client_talks(exact_alerts: bool) -> None:
    conversation = converse(
        End(False, exact_alerts=exact_alerts), End(True, exact_alerts=exact_alerts)
    )
    assert conversation.outcome == conversation.calling.made
    conversation.calling.made[0].transport.write(b"hello")
    conversation.pump()
    assert conversation.served.made[0].heard == b"hello"
    peer = conversation.served.made[0].transport.peer
    assert str(peer.spiffe_id) == "spiffe://mesh.local/service/backend"
    assert (peer.tls.version, peer.tls.sni, peer.tls.alpn) == ("TLS 1.3", "localhost", "http/1.1")
    assert len(peer.path) == len(peer.tls.chain) == len(peer.tls.serials) == 3


def test_a_client_with_another_kind_of_keys_talks() -> None:
    keys = (key(name, KeyAlgorithm.ED25519) for name in ("root", "issuing", "leaf"))
    root_key, issuing_key, leaf_key = keys
    ca = mesh(MESH, root_key, issuing_key, TODAY - HOUR)
    leaf = ca.leaf(now=TODAY, leaf_key=leaf_key)
    svid = svid_of(leaf, ca.issuing.intermediates, leaf_key)
    conversation = converse(End(False, svid, ca), End(True, svid, ca))
    conversation.calling.made[0].transport.write(b"hello")
    conversation.pump()
    assert conversation.served.made[0].heard == b"hello"


def next_generation() -> Mesh:
    """The same root with its next issuing CA."""
    root = home().root
    made = root.create_issuing(key("generation 2"), MESH, TODAY - HOUR, generation=2)
    return Mesh(MESH, root, asyncio.run(made))


@pytest.mark.parametrize("ahead", ["client", "server", "both"])
def test_both_ends_talk_while_one_has_a_leaf_of_the_next_issuing_ca(ahead: str) -> None:
    """Each still knows the issuers of the time of its own last renewal."""
    new = next_generation()
    client, server = End(False), End(True)
    for end, name in ((client, "client"), (server, "server")):
        if ahead in (name, "both"):
            end.contexts.replace(good_svid(new), end.believes.bundles.all_roots)
    conversation = converse(client, server)
    conversation.calling.made[0].transport.write(b"hello")
    conversation.pump()
    assert conversation.served.made[0].heard == b"hello"


def test_the_application_is_connected_only_after_the_peer_is_proven() -> None:
    conversation = converse(End(False), End(True))
    assert conversation.served.made[0].connected_times == 1
    assert conversation.calling.made[0].connected_times == 1


#: What is wrong with a client and not with a server: serverAuth is all that a server needs.
FINE_FOR_A_SERVER = {"no certificate", "not allowed here", "only serverAuth"}


@pytest.mark.parametrize("name", sorted(set(BAD) - FINE_FOR_A_SERVER))
def test_a_bad_server_is_refused_before_anything_is_sent_to_it(name: str) -> None:
    make, code, _ = BAD[name]
    conversation = converse(End(False), End(True, make()))
    assert isinstance(conversation.client_error, PeerRefused)
    assert code in [problem.code for problem in conversation.client_error.problems]
    assert conversation.calling.made[0].connected_times == 0
    assert conversation.served.made[0].heard == b""


def test_the_host_name_is_checked_besides_the_identity() -> None:
    conversation = converse(
        End(False), End(True), [lambda leaf: hostname_problem(leaf, "elsewhere.example")]
    )
    assert [p.code for p in conversation.client_error.problems] == ["name-mismatch"]
    assert conversation.served.made[0].heard == b""


def test_every_reason_is_given_at_once() -> None:
    bad = issued(end=TODAY - timedelta(seconds=1), replace={x509.ExtendedKeyUsage: None})
    conversation = converse(End(False, bad), End(True))
    (event,) = [e for e in conversation.server.log.events if e.get("event") == "peer-refused"]
    assert set(event["codes"].split(", ")) == {"expired", "wrong-usage"}


def test_a_revoked_client_gets_the_alert_that_says_so() -> None:
    client, server = End(False), End(True)
    assert client.svid is not None
    revocation = Revocation(
        home().issuing.key_id,
        client.svid.leaf.serial_number,
        TODAY,
        Reason.KEY_COMPROMISE,
        TODAY + HOUR,
    )
    trust = server.judge.trust
    server.judge.trust = evolve(trust, revocations=trust.revocations.merged([revocation], TODAY))
    conversation = converse(client, server)
    refused(conversation, "revoked")
    problem = problem_of(conversation.client_error)
    assert (problem.code, problem.rule) == ("revoked", "TLS alert: certificate revoked")


def test_where_revocations_are_too_old_it_is_not_blamed_on_the_clients_certificate() -> None:
    client, server = End(False), End(True)
    server.judge.freshness = Freshness(timedelta(seconds=5), seconds=lambda: 100.0)
    server.judge.freshness.refresh(1.0, TODAY)
    conversation = converse(client, server)
    refused(conversation, "stale-revocation")
    problem = problem_of(conversation.client_error)
    assert (problem.code, problem.rule) == ("bad-certificate", "TLS alert: certificate unknown")
    assert "revocations may be out of date" in problem.detail


def test_a_client_whose_revocations_are_too_old_talks_to_nobody() -> None:
    client, server = End(False), End(True)
    client.judge.freshness = Freshness(timedelta(seconds=5), seconds=lambda: 100.0)
    client.judge.freshness.refresh(1.0, TODAY)
    conversation = converse(client, server)
    assert isinstance(conversation.client_error, PeerRefused)
    assert conversation.client_error.problems[0].code == "stale-revocation"
    assert conversation.served.made[0].heard == b""


def test_a_verdict_that_was_good_ends_with_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = End(False), End(True)
    assert converse(client, server).served.made[0].connected_times == 1
    server.time = TODAY + 2 * HOUR
    assert not server.judge.verdict(client.svid.chain, verify.Purpose.CLIENT).ok  # type: ignore[union-attr]


@pytest.mark.parametrize("exact_alerts", [True, False])
def test_a_bug_in_the_callback_shuts_the_door(
    monkeypatch: pytest.MonkeyPatch, exact_alerts: bool
) -> None:
    def broken(*args: object) -> bool:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(verify.Handshake, "decide", broken)
    server = End(True, exact_alerts=exact_alerts)
    conversation = converse(End(False, exact_alerts=exact_alerts), server)
    assert all(t.connected_times == 0 for t in conversation.served.made)
    assert len(server.registry) == 0


def test_a_handshake_without_a_verdict_is_no_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a resumed session, which skips the callback: a certificate, and nobody judged it."""

    def skipped(context: SSL.Context, **_: object) -> None:
        context.set_verify(SSL.VERIFY_PEER, lambda *args: True)

    client = End(False)
    monkeypatch.setattr(verify, "install", skipped)
    server = End(True)
    conversation = converse(client, server)
    assert conversation.served.made[0].connected_times == 0
    assert len(server.registry) == 0
    assert server.log.count("establish-broke") == 1


def test_a_server_that_takes_no_certificate_knows_that_it_has_none() -> None:
    conversation = converse(End(False, None), End(True, demands_certificate=False))
    talker = conversation.served.made[0]
    assert talker.connected_times == 1
    assert talker.transport.peer is None


def test_but_a_bad_certificate_is_refused_even_where_none_is_needed() -> None:
    conversation = converse(End(False, of_another_ca()), End(True, demands_certificate=False))
    refused(conversation, "unknown-authority")


def test_without_an_identity_a_server_hangs_up() -> None:
    server = End(True)
    server.contexts.withdraw()
    assert (
        in_memory(Conversation(End(False), server).served, server.security).buildProtocol(None)
        is None
    )
    assert server.log.count("no-identity") == 1


def test_a_handshake_that_stalls_is_given_up_however_it_drips() -> None:
    from tests.twisted_mesh.tls.wires import Talkers, Wire

    server, wire = End(True), Wire()
    protocol = in_memory(Talkers(), server.security).buildProtocol(None)
    wire.protocol = protocol
    protocol.makeConnection(wire)
    hello = bytes.fromhex("16030100ff010000fb0303")
    for octet in hello[:9]:
        protocol.dataReceived(bytes((octet,)))
        server.clock.advance(1.0)
    assert not wire.closing
    server.clock.advance(1.1)
    assert wire.aborted
    wire.settle()
    (event,) = [e for e in server.log.events if e.get("event") == "peer-refused"]
    assert event["codes"] == "handshake-timeout"
    assert server.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "not-tls"),
        (b"\x00" * 64, "not-tls"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not-tls"),
    ],
)
def test_what_is_not_tls_is_told_so_in_the_log(sent: bytes, code: str) -> None:
    from tests.twisted_mesh.tls.wires import Talkers, Wire

    server, wire = End(True), Wire()
    protocol = in_memory(Talkers(), server.security).buildProtocol(None)
    wire.protocol = protocol
    protocol.makeConnection(wire)
    wire.protocol.dataReceived(sent)
    assert wire.closing
    wire.settle()
    (event,) = [e for e in server.log.events if e.get("event") == "peer-refused"]
    assert event["codes"] == code


def test_a_peer_is_asked_again_whether_it_is_still_good() -> None:
    server = End(True)
    conversation = converse(End(False), server)
    connection = conversation.served.made[0].transport
    assert connection.still_good()
    assert not connection.objections()
    server.time = TODAY + 2 * HOUR
    assert not connection.still_good()
    assert "expired" in {problem.code for problem in connection.objections()}


def test_the_peer_of_a_lost_connection_is_not_good_any_more() -> None:
    conversation = converse(End(False), End(True))
    connection = conversation.served.made[0].transport
    connection.connectionLost()
    assert not connection.still_good()
    assert not connection.objections()


def test_rotation_leaves_open_connections_alone() -> None:
    server = End(True)
    conversation = converse(End(False), server)
    server.contexts.replace(good_svid(), server.believes.bundles.all_roots)
    conversation.calling.made[0].transport.write(b"still here")
    conversation.pump()
    assert conversation.served.made[0].heard == b"still here"
    assert len(server.registry) == 1


def test_a_context_that_cannot_be_built_leaves_the_old_one() -> None:
    server = End(True)
    before = server.contexts.current()
    with pytest.raises(SSL.Error):
        server.contexts.replace(svid_of(forge(home().issuing), (), key("not its key")), [])
    assert server.contexts.current() == before


def test_revocation_severs_what_rests_on_the_certificate() -> None:
    server = End(True)
    conversation = converse(End(False), server)
    peer = conversation.served.made[0].transport.peer
    for issuer, serial in peer.credentials():
        assert len(server.registry.resting_on(issuer, serial)) == 1
    server.registry.all()[0].sever([Problem("revoked", "a test says so")])
    conversation.pump()
    assert conversation.served.made[0].lost is not None
    assert len(server.registry) == 0
    assert "a test says so" in server.log.text("connection-severed")


def test_a_peer_that_never_says_goodbye_is_dropped() -> None:
    server = End(True)
    conversation = converse(End(False), server)
    conversation.served.made[0].transport.loseConnection()
    assert not conversation.server_wire.closing
    server.clock.advance(CLOSE_TIMEOUT + 0.1)
    assert conversation.server_wire.aborted
    conversation.pump()
    assert server.clock.getDelayedCalls() == []


def test_no_timer_outlives_its_connection() -> None:
    client, server = End(False), End(True)
    conversation = converse(client, server)
    conversation.client_wire.loseConnection()
    conversation.pump()
    assert client.clock.getDelayedCalls() == server.clock.getDelayedCalls() == []


def test_a_protocol_that_breaks_as_it_is_connected_is_nobodys_connection() -> None:
    class Broken(Talker):
        def connectionMade(self) -> None:
            raise ZeroDivisionError("a bug")

    server = End(True)
    conversation = Conversation(End(False), server)
    conversation.served.buildProtocol = lambda addr: Broken()  # type: ignore[method-assign]
    conversation.connect()
    assert server.log.count("establish-broke") == 1
    assert len(server.registry) == 0


def test_neither_tls_1_2_nor_tickets_nor_a_session_cache() -> None:
    context, _ = End(True).contexts.current() or (None, 0)
    assert context is not None
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
    assert context.set_options(0) & SSL.OP_NO_TICKET


def test_the_root_stays_out_of_the_handshake_but_of_the_cas() -> None:
    conversation = converse(End(False), End(True))
    connection = conversation.calling.made[0].transport.transport.getHandle()
    assert len(connection.get_peer_cert_chain()) == 2


def test_an_intermediate_that_is_revoked_refuses_all_below_it() -> None:
    server = End(True)
    ca = home()
    revocation = Revocation(
        ca.root.key_id,
        ca.issuing.certificate.serial_number,
        TODAY,
        Reason.CA_COMPROMISE,
        TODAY + HOUR,
    )
    trust = server.judge.trust
    server.judge.trust = evolve(trust, revocations=trust.revocations.merged([revocation], TODAY))
    refused(converse(End(False), server), "revoked")


def revoke(server: End, leaf: x509.Certificate) -> None:
    revocation = Revocation(
        home().issuing.key_id, leaf.serial_number, TODAY, Reason.SUPERSEDED, TODAY + HOUR
    )
    trust = server.judge.trust
    revoked = trust.revocations.merged([revocation], TODAY)
    reviewer = Reviewer(server.judge, server.registry, server.clock, server.log)
    reviewer.believe(evolve(trust, revocations=revoked), [revocation])


def wait(server: End, leaf: x509.Certificate) -> None:
    server.time = leaf.not_valid_after_utc + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("change", "code"), [(revoke, "revoked"), (wait, "expired")], ids=["revoked", "expired"]
)
def test_a_peer_that_is_good_no_more_before_it_finishes_its_handshake_is_not_let_in(
    change: Callable[[End, x509.Certificate], None], code: str
) -> None:
    """It shows its certificate, which is good, and holds back the end until it no longer is."""
    client, server = End(False), End(True)
    conversation = Conversation(client, server)
    conversation.pump = lambda: None  # type: ignore[method-assign]
    conversation.connect()
    carry = conversation._carry
    carry(conversation.client_wire, conversation.server_wire)
    carry(conversation.server_wire, conversation.client_wire)
    *records, finished = tls_records(conversation.client_wire.value())
    conversation.client_wire.clear()
    conversation.server_wire.protocol.dataReceived(b"".join(records))
    assert server.judge.trust.generation == 0
    assert client.svid is not None
    change(server, client.svid.leaf)
    conversation.server_wire.protocol.dataReceived(finished)
    conversation.server_wire.settle()
    refused(conversation, code)


def test_each_end_decides_once_in_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL calls for each certificate of the chain; of a CA that it has nothing against there is nothing to say."""
    depths: list[int] = []
    decide = verify.decide

    def noting(*arguments: Any) -> int:
        depths.append(arguments[3])
        return decide(*arguments)

    monkeypatch.setattr(verify, "decide", noting)
    assert converse(End(False), End(True)).served.made[0].connected_times == 1
    assert depths == [0, 0]


@pytest.mark.parametrize("exact_alerts", [True, False], ids=["cffi", "public"])
def test_what_openssl_has_against_a_ca_refuses_all_below_it(exact_alerts: bool) -> None:
    ended = forge_issuing(home().root, **{**LIVES, "end": TODAY - timedelta(seconds=1)})
    server = End(True, exact_alerts=exact_alerts)
    conversation = converse(End(False, svid_of(forge(ended, **LIVES), ended.intermediates)), server)
    refused(conversation, "expired")
    if exact_alerts:
        told = problem_of(conversation.client_error)
        assert told.code == "expired"
        assert "TLS alert: certificate expired" in (told.rule or "")


def tls_records(data: bytes) -> list[bytes]:
    """What is on the wire, record by record (RFC 8446 section 5.1)."""
    records = []
    while data:
        size = 5 + int.from_bytes(data[3:5], "big")
        records.append(data[:size])
        data = data[size:]
    return records


def test_another_trust_domains_ca_cannot_mint_our_names() -> None:
    """Both roots are held, so OpenSSL alone would let it in."""
    other = home(OTHER)
    minted = svid_of(
        forge(other.issuing, uris=["spiffe://mesh.local/service/admin"], **LIVES),
        other.issuing.intermediates,
    )
    server = End(True)
    bundles = type(server.judge.trust.bundles).of(home().bundle, other.bundle)
    server.judge.trust = evolve(server.judge.trust, bundles=bundles)
    server.contexts.replace(server.svid, bundles.all_roots)
    refused(converse(End(False, minted), server), "unknown-authority")


def test_an_intermediate_without_the_right_to_sign_is_no_issuer() -> None:
    pretender = forge_issuing(
        home().issuing,
        "pretender",
        replace={x509.BasicConstraints: (x509.BasicConstraints(False, None), True)},
        **CA_LIVES,
    )
    leaf = forge(pretender, **LIVES)
    refused(
        converse(End(False, svid_of(leaf, pretender.intermediates)), End(True)),
        "not-a-ca",
    )


def test_the_cffi_layer_is_there_with_the_pinned_pyopenssl() -> None:
    assert x509_store_ctx.available
    assert x509_store_ctx.error_text(10) == "certificate has expired"
    # Not of the class: it is there once a context is.
    assert SSL.Context(SSL.TLS_METHOD)._context is not None


@pytest.mark.parametrize("gone", ["cffi", "context"])
def test_where_pyopenssl_has_changed_a_refused_peer_is_refused_all_the_same(
    gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the public callback: all that is lost is the alert that fits."""
    if gone == "cffi":
        monkeypatch.setattr(x509_store_ctx, "available", False)
    else:
        real = x509_store_ctx.install

        class Changed:
            """A context that keeps its pointer under another name."""

        def install(context: SSL.Context, mode: int, decide: Any) -> None:
            real(Changed(), mode, decide)  # type: ignore[arg-type]

        monkeypatch.setattr(x509_store_ctx, "install", install)
    assert converse(End(False), End(True)).served.made[0].connected_times == 1
    stranger = converse(End(False, good_svid(home(OTHER))), End(True))
    assert stranger.served.made[0].connected_times == 0
