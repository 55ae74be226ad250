"""An application that breaks loses its own connection and no other; the log has it once."""

from typing import Any

import pytest

from tests.twisted_mesh.tls.transport.application import Application, HalfCloseable, Pull, Push
from tests.twisted_mesh.tls.transport.rig import Rig


class Broken(Exception):
    pass


def _break(_: Any) -> None:
    raise Broken("in an application")


#: As the log has it.
BROKEN = ["Broken: in an application"]


def _another(rig: Rig) -> tuple[Application, Application]:
    """A connection that is there before, and talks on."""
    kept = rig.pair(Application())
    rig.logged.clear()
    return kept


def _talks_on(rig: Rig, kept: tuple[Application, Application]) -> None:
    served, calling = kept
    calling.transport.write(b"still here")
    rig.until(lambda: served.heard.endswith(b"still here"))
    assert served.lost is None and calling.lost is None


def _listen(rig: Rig, **does: Any) -> tuple[Application, Application]:
    """The second who comes is given a broken application."""
    broken = [False]

    def make() -> Application:
        is_second, broken[0] = broken[0], True
        return Application(**(does if is_second else {}))

    rig.listen(make)
    return _another(rig)


@pytest.mark.parametrize("where", ["made", "data"])
def test_a_server_that_breaks_closes_that_connection(where: str, rig: Rig) -> None:
    kept = _listen(rig, **{where: _break})
    peer = rig.by_hand(shakes_hands=False)
    peer.shake_hands()
    rig.until(lambda: peer.is_secured)
    peer.say(b"x")
    rig.until(lambda: peer.end)
    if where == "made":  # which the mesh itself catches, and logs as its own
        assert rig.server.log.count("establish-broke") == 1
        assert rig.logged == []
    else:
        assert rig.logged == BROKEN
    _talks_on(rig, kept)


def test_a_client_that_breaks_closes_that_connection(rig: Rig) -> None:
    kept = _listen(rig)
    served, calling = rig.pair(Application(data=_break))
    served.transport.write(b"x")
    rig.until(lambda: served.lost and calling.lost)
    assert rig.logged == BROKEN
    _talks_on(rig, kept)


def test_who_breaks_at_the_end_is_logged_once(rig: Rig) -> None:
    kept = _listen(rig, lost=_break)
    rig.by_hand().reset()
    rig.until(lambda: rig.served[1].lost)
    rig.turns()
    assert rig.logged == BROKEN
    assert rig.served[1].happened == ["made", "lost"]
    assert len(rig.server.registry) == 1, "nothing is kept of it"
    _talks_on(rig, kept)


def test_who_breaks_by_its_data_and_then_by_its_end(rig: Rig) -> None:
    kept = _listen(rig, data=_break, lost=_break)
    peer = rig.by_hand()
    peer.say(b"x")
    rig.until(lambda: peer.end)
    assert rig.logged == BROKEN * 2
    _talks_on(rig, kept)


def test_who_breaks_by_data_that_waited_for_it(rig: Rig) -> None:
    """It is delivered in another turn than the one that read it."""
    kept = _listen(rig)
    peer = rig.by_hand()
    broken = rig.served[1]
    broken.does["data"] = lambda me: me.transport.pauseProducing()
    for _ in range(50):
        peer.tls.send(b"x" * 1000)
    peer.step()
    rig.until(lambda: broken.times)
    rig.turns()
    broken.does["data"] = _break
    if rig.transport == "twisted":  # has delivered all
        peer.say(b"x")
    broken.transport.resumeProducing()
    rig.until(lambda: broken.lost)
    assert set(rig.logged) == set(BROKEN)
    assert len(rig.logged) == 1
    _talks_on(rig, kept)


class BreakingPush(Push):
    """Breaks when it is asked to pause, or to go on."""

    breaks = ""

    def pauseProducing(self) -> None:
        super().pauseProducing()
        if self.breaks == "pause":
            raise Broken("in an application")

    def resumeProducing(self) -> None:
        if self.breaks == "resume":
            self.breaks = ""
            raise Broken("in an application")
        super().resumeProducing()


def test_a_producer_that_breaks_when_it_may_go_on(rig: Rig) -> None:
    kept = _listen(rig)
    peer = rig.by_hand()
    peer.reads = False
    push = BreakingPush(rig.served[1], 4096)
    push.breaks = "resume"
    push.start(rig.reactor)
    rig.until(lambda: push.is_paused)
    rig.turns()
    peer.reads = True
    rig.until(lambda: rig.served[1].lost)
    assert push.is_stopped
    assert rig.logged == BROKEN
    _talks_on(rig, kept)


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_a_producer_that_breaks_when_it_is_asked_for_a_piece(rig: Rig) -> None:
    """Twisted's asks through a cooperator, which logs it and goes on without the producer."""
    kept = _listen(rig)
    peer = rig.by_hand()

    class Breaking(Pull):
        def resumeProducing(self) -> None:
            if self.rest == 1:
                raise Broken("in an application")
            super().resumeProducing()

    Breaking(rig.served[1], 3).start()
    rig.until(lambda: rig.served[1].lost and peer.end)
    assert rig.logged == BROKEN
    _talks_on(rig, kept)


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
@pytest.mark.parametrize("where", ["read lost", "write lost"])
def test_who_breaks_at_half_the_end(where: str, rig: Rig) -> None:
    rig.listen(lambda: HalfCloseable(**{where: _break}))
    kept = _another(rig)
    peer = rig.by_hand()
    if where == "read lost":
        peer.goodbye()
    else:
        rig.served[1].transport.loseWriteConnection()
    rig.until(lambda: rig.served[1].lost and peer.end)
    assert rig.logged == BROKEN
    _talks_on(rig, kept)


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_a_producer_that_breaks_when_it_is_stopped(rig: Rig) -> None:
    """Twisted's keeps such a connection for ever."""
    kept = _listen(rig)
    peer = rig.by_hand()

    class Breaking(Push):
        def stopProducing(self) -> None:
            super().stopProducing()
            raise Broken("in an application")

    Breaking(rig.served[1], 4096).start(rig.reactor)
    peer.reset()
    rig.until(lambda: len(rig.server.registry) == 1)
    rig.turns()
    assert rig.served[1].lost, "it is told all the same"
    assert rig.logged == BROKEN
    _talks_on(rig, kept)
