"""IRevocationListener: what holds for every implementation, and the order in which they hear."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, NOW
from tests.twisted_mesh.ca.rigs import CaRig, ca_rig
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.revocation.listeners import RevocationListeners
from twisted_mesh.revocation.stapler import Stapler
from twisted_mesh.runtime.log import logger
from twisted_mesh.taps.ca_endpoint import CaEndpoint, own_trust_store
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.trust.store import TrustStore

LOG = logger("test")
GONE = Revocation("0" * 64, 7, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)


@implementer(IRevocationListener)
@define(eq=False)
class Listener:
    """Notes what it hears, in a list that it may share with others; one that is ``broken`` raises."""

    name: str = ""
    heard: list[tuple[str, Sequence[Revocation]]] = field(factory=list)
    broken: bool = False

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        self.heard.append((self.name, revocations))
        if self.broken:
            raise RuntimeError("a bug")


def of_an_endpoint(rig: CaRig) -> Stapler:
    async def ask(request: bytes) -> bytes:
        raise AssertionError("it has no certificate to ask about")

    return Stapler(ask, Staples(rig.now), Clock(), rig.now, LOG)


def trust_store(rig: CaRig) -> TrustStore:
    return own_trust_store(rig.ca.current, Clock(), rig.now, LOG)


def of_the_ca_itself(rig: CaRig) -> CaEndpoint:
    return CaEndpoint.of(rig.ca.own, rig.ca.responder, trust_store(rig), Clock(), LOG)


LISTENERS: dict[str, Callable[[CaRig], Any]] = {
    "several": lambda rig: RevocationListeners([Listener(), Listener()], LOG),
    "one of which is broken": lambda rig: RevocationListeners([Listener(broken=True)], LOG),
    "none": lambda rig: RevocationListeners([], LOG),
    "stapler": of_an_endpoint,
    "trust store": trust_store,
    "the CA's own endpoint": of_the_ca_itself,
    "notifier": lambda rig: rig.ca.notifier,
    "OCSP responder": lambda rig: rig.ca.responder,
    "CRL publisher": lambda rig: rig.ca.publisher,
}


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig(notifier=Notifier(Clock())) as made:
        yield made


@pytest.fixture(params=LISTENERS.values(), ids=LISTENERS)
def listener(request: Any, rig: CaRig) -> IRevocationListener:
    made: IRevocationListener = request.param(rig)
    return made


def test_it_provides_the_interface(listener: IRevocationListener) -> None:
    assert verifyObject(IRevocationListener, listener)


@pytest.mark.parametrize("revocations", [(), (GONE,), [GONE, GONE]], ids=len)
def test_it_hears_whatever_it_is_told_and_as_often_as_it_is_told(
    listener: IRevocationListener, revocations: Sequence[Revocation]
) -> None:
    for _ in range(2):
        # mypy knows that nothing is returned; an implementation without annotations might do so.
        answered: object = listener.revoked(revocations)  # type: ignore[func-returns-value]
        assert answered is None


def test_the_first_one_hears_first() -> None:
    heard: list[tuple[str, Sequence[Revocation]]] = []
    RevocationListeners([Listener(name, heard) for name in "abc"], LOG).revoked([GONE])
    assert heard == [("a", [GONE]), ("b", [GONE]), ("c", [GONE])]


def test_one_that_raises_keeps_no_other_from_hearing_and_is_told() -> None:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    heard: list[tuple[str, Sequence[Revocation]]] = []
    try:
        RevocationListeners([Listener("a", heard, broken=True), Listener("b", heard)], LOG).revoked(
            [GONE]
        )
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [name for name, _ in heard] == ["a", "b"]
    (told,) = [event for event in events if event.get("event") == "revocation-unheard"]
    assert told["listener"] == "Listener"
