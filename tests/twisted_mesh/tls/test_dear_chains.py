"""The dearest handshake that a stranger can force, beside an ordinary one that is refused."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cryptography import x509

from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, forge, forge_issuing, forge_root
from tests.pki.svid.test_path import DEAR, UNIDENTIFIED, Chain
from tests.twisted_mesh.tls.wires import Conversation, End, Wire, svid_of

#: Three is the aim and a little less is found. A busy machine, and one that verifies slowly, have a little more.
_TIMES = 4


class _Clocked:
    """A protocol whose time for what it is sent is counted."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.seconds = 0.0

    def dataReceived(self, data: bytes) -> None:
        start = time.process_time()
        self._protocol.dataReceived(data)
        self.seconds += time.process_time() - start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)


class _ClockedWire(Wire):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _Clocked(value) if name == "protocol" else value)


def seconds(presented: X509Svid) -> float:
    """What a server spends on refusing it, at best of five."""
    spent = []
    for _ in range(5):
        wire = _ClockedWire()
        conversation = Conversation(End(False, presented), End(True), server_wire=wire)
        conversation.connect()
        assert len(conversation.server.registry) == 0
        spent.append(wire.protocol.seconds)
    return min(spent)


def many_names() -> X509Svid:
    names = [x509.UniformResourceIdentifier(str(BACKEND)), *[x509.DNSName("")] * 9_000]
    replace = {**UNIDENTIFIED, x509.SubjectAlternativeName: (names_of(names), False)}
    return svid_of(forge(forge_root(80), replace=replace), ())


def names_of(names: list[x509.GeneralName]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def ordinary() -> X509Svid:
    stranger = forge_issuing(forge_root(70), 71)
    return svid_of(forge(stranger), (stranger.certificate,))


def presenting(make: Callable[[], Chain]) -> X509Svid:
    leaf, *others = make()
    return svid_of(leaf, others)


KINDS: dict[str, Callable[[], X509Svid]] = {
    **{kind: partial(presenting, make) for kind, make in DEAR.items()},
    "nine thousand names": many_names,
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_stranger_forces_a_dear_handshake(kind: str) -> None:
    assert seconds(KINDS[kind]()) < _TIMES * seconds(ordinary())
