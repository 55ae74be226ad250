"""IRevocationListener: what holds for every implementation, and the order in which they hear."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import define, field
from twisted.logger import globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, NOW
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.revocation.listeners import RevocationListeners
from twisted_mesh.runtime.log import logger

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


LISTENERS: dict[str, Callable[[], IRevocationListener]] = {
    "several": lambda: RevocationListeners([Listener(), Listener()], LOG),
    "one of which is broken": lambda: RevocationListeners([Listener(broken=True)], LOG),
    "none": lambda: RevocationListeners([], LOG),
}


@pytest.fixture(params=LISTENERS.values(), ids=LISTENERS)
def listener(request: Any) -> IRevocationListener:
    made: IRevocationListener = request.param()
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
