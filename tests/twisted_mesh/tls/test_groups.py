"""With --require-pq no byte of an application passes where keys were not exchanged by a hybrid group."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from OpenSSL import SSL
from prometheus_client import REGISTRY

from pki.svid.x509svid import Purpose, X509Svid
from tests.looked_at import shaken
from tests.twisted_mesh.tls.test_turned_away import choosy
from tests.twisted_mesh.tls.wires import Conversation, End, converse, good_svid
from twisted_mesh.runtime import meters
from twisted_mesh.runtime.wire import Attempt, PlainWire
from twisted_mesh.tls import blocking, groups, transport, verify
from twisted_mesh.tls.alerts import PeerRefused
from twisted_mesh.tls.blocking import BlockingTls
from twisted_mesh.tls.contexts import Role, build_context
from twisted_mesh.tls.groups import NoHybridGroup, insist
from twisted_mesh.tls.hybrid import HYBRID, is_hybrid
from twisted_mesh.tls.rehearsal import CannotShakeHands, rehearse
from twisted_mesh.tls.verify import Handshake

CLASSICAL = ("x25519", "secp256r1", "secp384r1", "secp521r1", "x448")
#: What is neither: a group of ML-KEM alone is no hybrid one.
NEITHER = ("MLKEM768", "MLKEM1024")


def speaking(end: End, names: str) -> End:
    """``end``, which offers and takes these groups and no other."""
    current = end.contexts.current()
    assert current is not None
    tell(current[0], names)
    return end


def tell(context: SSL.Context, names: str) -> None:
    assert SSL._lib.SSL_CTX_set1_curves_list(context._context, names.encode()) == 1  # type: ignore[attr-defined]


def without_setter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a pyOpenSSL whose cffi layer has changed: the second lock is the only one."""

    class Lib:
        SSL_get0_group_name = SSL._lib.SSL_get0_group_name  # type: ignore[attr-defined]

    monkeypatch.setattr(groups, "_lib", Lib())


def nothing_passes(conversation: Conversation) -> None:
    """Neither application is connected, nor hears a byte, whatever the other one says."""
    for talker in (*conversation.served.made, *conversation.calling.made):
        if talker.connected_times:
            talker.transport.write(b"a secret")
    conversation.pump()
    assert not any(talker.heard for talker in conversation.served.made)
    assert not any(talker.heard for talker in conversation.calling.made)


def codes_of(end: End) -> list[str]:
    return [event["codes"] for event in end.log.events if event.get("event") == "peer-refused"]


@pytest.mark.parametrize("strict", ["client", "server", "both"])
@pytest.mark.parametrize("group", HYBRID)
def test_every_hybrid_group_is_taken(strict: str, group: str) -> None:
    client = End(False, requires_pq=strict != "server")
    server = End(True, requires_pq=strict != "client")
    speaking(server if strict == "client" else client, group)
    conversation = converse(client, server)
    conversation.calling.made[0].transport.write(b"hello")
    conversation.pump()
    assert conversation.served.made[0].heard == b"hello"
    assert conversation.served.made[0].transport.peer.tls.group == group
    assert conversation.calling.made[0].transport.peer.tls.group == group


@pytest.mark.parametrize("exact_alerts", [True, False])
@pytest.mark.parametrize("group", [*CLASSICAL, *NEITHER, ":".join(CLASSICAL)])
def test_a_server_refuses_a_client_without_them_and_tells_what_it_offered(
    group: str, exact_alerts: bool
) -> None:
    client = speaking(End(False), group)
    server = End(True, requires_pq=True, exact_alerts=exact_alerts)
    conversation = converse(client, server)
    nothing_passes(conversation)
    assert not conversation.served.made[0].connected_times
    (said,) = (e for e in server.log.events if e.get("event") == "peer-refused")
    assert said["codes"] == "classical-key-exchange"
    assert f"offers to exchange keys by {group.replace(':', ', ')}, and a hybrid" in said["reasons"]
    assert "X25519MLKEM768" in said["reasons"]
    assert conversation.client_error.problems[0].rule == "TLS alert: handshake failure"


@pytest.mark.parametrize("group", [*CLASSICAL, *NEITHER])
def test_a_client_refuses_a_server_without_them_and_tells_what_to_do(group: str) -> None:
    conversation = converse(End(False, requires_pq=True), speaking(End(True), group))
    nothing_passes(conversation)
    assert not conversation.served.made[0].connected_times
    (problem,) = conversation.client_error.problems
    assert problem.code == "classical-key-exchange"
    assert (
        "we offer X25519MLKEM768, SecP256r1MLKEM768, SecP384r1MLKEM1024 and no other"
        in problem.detail
    )
    assert "pki-inspect probe" in problem.remedy


@pytest.mark.parametrize("demands", [True, False])
@pytest.mark.parametrize("shown", [good_svid, lambda: None], ids=["certificate", "none"])
@pytest.mark.parametrize("exact_alerts", [True, False])
def test_the_second_lock_of_a_server_holds_by_itself(
    monkeypatch: pytest.MonkeyPatch, demands: bool, shown: Any, exact_alerts: bool
) -> None:
    without_setter(monkeypatch)
    svid: X509Svid | None = shown()
    server = End(True, requires_pq=True, demands_certificate=demands, exact_alerts=exact_alerts)
    client = speaking(End(False, svid), "x25519")
    conversation = converse(client, server)
    nothing_passes(conversation)
    assert not conversation.served.made[0].connected_times
    if svid is not None or not demands:
        assert codes_of(server) == ["classical-key-exchange"]
        said = server.log.events[-1]["reasons"]
        assert "exchanges keys by x25519" in said
    if svid is not None and exact_alerts:
        # In TLS 1.3 a client's handshake is over before it is refused.
        ended = conversation.calling.made[0].lost
        assert ended is not None
        assert "handshake failure" in str(ended.value.problems[0].rule)


def test_the_second_lock_of_a_client_holds_before_it_shows_its_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_setter(monkeypatch)
    client, server = End(False, requires_pq=True), speaking(End(True), "secp384r1")
    conversation = converse(client, server)
    nothing_passes(conversation)
    assert [p.code for p in conversation.client_error.problems] == ["classical-key-exchange"]
    assert "exchanges keys by secp384r1" in conversation.client_error.problems[0].detail
    assert not conversation.served.made[0].connected_times
    assert codes_of(server) == ["handshake-failure"]


@pytest.mark.parametrize("strict", ["client", "server"])
def test_the_last_lock_holds_where_the_callback_has_not_looked(
    monkeypatch: pytest.MonkeyPatch, strict: str
) -> None:
    """By itself: neither is OpenSSL told, nor is it asked within the handshake."""
    without_setter(monkeypatch)
    client = End(False, requires_pq=strict == "client")
    server = End(True, requires_pq=strict == "server")
    speaking(server if strict == "client" else client, "x25519")
    conversation = _unlooked(monkeypatch, client, server)
    nothing_passes(conversation)
    refusing = conversation.calling if strict == "client" else conversation.served
    assert not refusing.made[0].connected_times


def _unlooked(monkeypatch: pytest.MonkeyPatch, client: End, server: End) -> Conversation:
    real = transport.Handshake

    def lax(*arguments: Any) -> Any:
        *others, _ = arguments
        return real(*others, False)

    monkeypatch.setattr(transport, "Handshake", lax)
    return converse(client, server)


def test_where_openssl_does_not_tell_the_group_nobody_is_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SSL.Connection, "get_group_name", lambda self: None)
    server = End(True, requires_pq=True)
    conversation = converse(End(False), server)
    nothing_passes(conversation)
    assert codes_of(server) == ["classical-key-exchange"]
    assert "a group that OpenSSL does not tell" in server.log.events[-1]["reasons"]


def test_where_it_cannot_tell_at_all_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        SSL_CTX_set1_curves_list = SSL._lib.SSL_CTX_set1_curves_list  # type: ignore[attr-defined]

    monkeypatch.setattr(groups, "_lib", Older())
    with pytest.raises(NoHybridGroup, match="cannot tell by which group"):
        build_context(good_svid(), [], Role(serves=True, requires_pq=True))


def test_where_openssl_has_one_of_them_that_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "HYBRID", ("Frodo976", "SecP256r1MLKEM768"))
    server = End(True, requires_pq=True)
    assert SSL._lib.ERR_peek_error() == 0  # type: ignore[attr-defined]
    conversation = converse(speaking(End(False), "SecP256r1MLKEM768:x25519"), server)
    assert conversation.served.made[0].connected_times
    nothing_passes(converse(speaking(End(False), "x25519"), server))


def test_where_openssl_has_no_hybrid_group_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "HYBRID", ("Frodo976", "NewHope"))
    with pytest.raises(NoHybridGroup, match=r"OpenSSL .* has none of X25519MLKEM768"):
        insist(SSL.Context(SSL.TLS_CLIENT_METHOD))
    # Nothing of it is left, for another connection to stumble over.
    assert SSL._lib.ERR_peek_error() == 0  # type: ignore[attr-defined]


def test_the_rehearsal_sees_that_a_context_cannot_be_told_its_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    svid, role = good_svid(), Role(serves=True, requires_pq=True)
    rehearse(build_context(svid, [], role), role, svid)
    without_setter(monkeypatch)
    context = build_context(svid, [], role)
    tell(context, "x25519")
    with pytest.raises(CannotShakeHands, match="exchanges keys by x25519"):
        rehearse(context, role, svid)


def test_a_peer_that_is_turned_away_is_told_nothing_over_a_classical_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_setter(monkeypatch)
    strict = choosy(requires_pq=True)
    conversation = converse(speaking(End(False), "x25519"), strict)
    conversation.calling.made[0].transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    conversation.pump()
    assert conversation.calling.made[0].heard == b""
    assert codes_of(strict) == ["classical-key-exchange"]


def test_a_hello_that_is_asked_for_again_fits_the_cap() -> None:
    """The largest hybrid share that is not the first that is offered: two hellos of 1.5 and 2 KiB."""
    client = speaking(End(False), "X25519MLKEM768:SecP384r1MLKEM1024")
    server = speaking(End(True, requires_pq=True), "SecP384r1MLKEM1024")
    conversation = converse(client, server)
    assert conversation.served.made[0].transport.peer.tls.group == "SecP384r1MLKEM1024"


def test_as_many_shares_as_there_are_hybrid_groups_fit_too() -> None:
    shares = ":".join(f"*{name}" for name in HYBRID)
    conversation = converse(speaking(End(False), shares), End(True, requires_pq=True))
    assert conversation.served.made[0].connected_times
    assert conversation.client_wire.connected


def test_a_context_of_another_certificate_keeps_the_rule() -> None:
    server = End(True, requires_pq=True)
    server.contexts.replace(good_svid(), server.believes.bundles.all_roots)
    nothing_passes(converse(speaking(End(False), "x25519"), server))
    assert converse(End(False), server).served.made[0].connected_times


@pytest.mark.parametrize("lock", ["none", "callback", "last"])
def test_a_program_without_a_reactor_holds_its_ca_to_it(
    lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lock by itself."""
    without_setter(monkeypatch)
    strict = lock != "none"
    if lock == "last":
        monkeypatch.setattr(
            blocking, "Handshake", lambda *told, requires_pq: Handshake(*told, requires_pq=False)
        )
    client, server = End(False, requires_pq=strict), speaking(End(True), "x25519")
    ends = socket.socketpair()
    current = server.contexts.current()
    assert current is not None
    serving = threading.Thread(target=_serve, args=(current[0], server, ends[1]))
    serving.start()
    tls = BlockingTls(client.security, "localhost")
    tls.present(client.svid, "here")
    try:
        if strict:
            with pytest.raises(PeerRefused) as refused:
                tls.secured(PlainWire(ends[0], Attempt(time.monotonic() + 10)))
            assert [p.code for p in refused.value.problems] == ["classical-key-exchange"]
        else:
            tls.secured(PlainWire(ends[0], Attempt(time.monotonic() + 10))).send(b"hello")
    finally:
        ends[0].close()
        serving.join(10)
        ends[1].close()


def _serve(context: SSL.Context, server: End, wire: socket.socket) -> None:
    connection = SSL.Connection(context, None)
    verify.begin(connection, Handshake(server.judge, Purpose.CLIENT))
    connection.set_accept_state()
    with suppress(OSError, SSL.Error):
        shaken(connection, wire)


def test_handshakes_are_counted_by_their_group_and_all_else_as_other() -> None:
    def counted(name: str) -> float:
        return REGISTRY.get_sample_value("mesh_handshakes_total", {"group": name}) or 0.0

    before = {name: counted(name) for name in meters.GROUPS}
    converse(End(False), End(True))
    converse(End(False), speaking(End(True), "secp521r1"))
    assert counted("X25519MLKEM768") == before["X25519MLKEM768"] + 2  # one at each end
    assert counted("secp521r1") == before["secp521r1"] + 2
    assert set(HYBRID) < set(meters.GROUPS)
    meters.exchanged("brainpoolP256r1tls13")
    meters.exchanged("")
    assert counted("other") == before["other"] + 2
    assert not any(map(is_hybrid, (*CLASSICAL, *NEITHER, "", "x25519mlkem768", "X25519MLKEM768 ")))
