"""A CA for each test, and the events that it logs."""

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from pki.keys import pkcs8
from tests.twisted_mesh.ca.rigs import CaRig, ca_rig


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are encrypted here are read back at once; what it costs to guess is tested in ``tests/pki``."""
    monkeypatch.setattr(pkcs8, "_COST", 16)


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig() as made:
        yield made


@pytest.fixture
def elsewhere(rig: CaRig) -> None:
    """The key that signs is not in this process: each signature has its intent on record first."""
    rig.signer.is_in_memory = False


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """Every event of the CA's own."""
    events: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if event.get("log_namespace") == "mesh.ca":
            events.append(event)

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)
