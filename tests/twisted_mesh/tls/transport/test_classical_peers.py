"""A peer by hand that has no hybrid group, on real sockets: it gets no byte, and none of its own is heard."""

import pytest

from tests.twisted_mesh.tls.test_groups import without_setter
from tests.twisted_mesh.tls.transport.application import Application
from tests.twisted_mesh.tls.transport.by_hand import ByHand
from tests.twisted_mesh.tls.transport.rig import Rig
from tests.twisted_mesh.tls.wires import End
from twisted_mesh.tls.alerts import as_error


@pytest.mark.parametrize("lock", ["both", "second"])
def test_a_client_is_refused(rig: Rig, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lock == "second":
        without_setter(monkeypatch)
    rig.server = End(True, clock=rig.clock, requires_pq=True)
    rig.listen()
    peer = rig.by_hand(shakes_hands=False, groups="x25519")
    peer.shake_hands()
    if lock == "second":  # its own part of the handshake is done, and it speaks at once
        rig.until(lambda: peer.is_secured)
        peer.say(b"GET / HTTP/1.1\r\n\r\n")
    rig.until(lambda: peer.end)
    assert rig.served[0].happened == []
    assert not peer.heard
    refused = [event for event in rig.server.log.events if event.get("event") == "peer-refused"]
    assert [event["codes"] for event in refused] == ["classical-key-exchange"]
    told = "offers to exchange keys by x25519" if lock == "both" else "exchanges keys by x25519"
    assert told in refused[0]["reasons"]


@pytest.mark.parametrize("lock", ["both", "second"])
def test_a_server_is_refused(rig: Rig, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lock == "second":
        without_setter(monkeypatch)
    rig.client = End(False, clock=rig.clock, requires_pq=True)
    application, outcome = Application(made=lambda it: it.transport.write(b"a secret")), []
    attempt, wire = rig.called(application)
    attempt.addErrback(outcome.append)
    peer = rig.hold(ByHand(wire, serves=True, groups="x25519"))
    peer.shake_hands()
    rig.until(lambda: outcome)
    rig.turns()
    assert application.happened == []
    assert not peer.heard
    problem = as_error(outcome[0]).problems[0]
    assert problem.code == "classical-key-exchange"
