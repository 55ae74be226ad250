"""A host's name leads to it, or it is said why not: also where nobody could be asked."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from twisted_mesh.runtime.names import HostEndpoint

Answer = Callable[[], list[Any]]


class GAIResolver:
    """In the place of Twisted's own, which is asked nothing."""


@define(eq=False)
class Pool:
    """Threads, of which none runs before it is told to."""

    waiting: list[tuple[Any, ...]] = field(factory=list)

    def callInThreadWithCallback(self, *work: Any) -> None:
        self.waiting.append(work)

    def run(self) -> None:
        for told, work, *words in self.waiting:
            try:
                outcome = work(*words)
            except Exception as error:
                told(False, Failure(error))
            else:
                told(True, outcome)
        self.waiting.clear()


class Threads(MemoryReactorClock):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.nameResolver: Any = GAIResolver()

    def getThreadPool(self) -> Pool:
        return self.pool

    def callFromThread(self, call: Callable[..., object], *words: Any) -> None:
        call(*words)


@pytest.fixture
def reactor() -> Threads:
    return Threads()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What getaddrinfo answers, one after the other; what is an error is raised."""
    coming: list[Any] = []

    def ask(*_: Any, **__: Any) -> Any:
        answer = coming.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    return coming


FOUND = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 8444, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 8444)),
]


def connect(reactor: Any, host: str) -> Any:
    return HostEndpoint(reactor, host, 8444, 10).connect(Factory.forProtocol(Protocol))


def test_a_name_is_looked_up_on_a_thread_and_each_address_tried(
    reactor: Threads, answers: list[Any]
) -> None:
    answers.append(FOUND)
    connecting = connect(reactor, "host.example")
    assert reactor.tcpClients == []
    reactor.pool.run()
    reactor.advance(1)
    assert [client[:2] for client in reactor.tcpClients] == [("::1", 8444), ("127.0.0.1", 8444)]
    connecting.addErrback(lambda _: None)
    connecting.cancel()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_is_not_looked_up(reactor: Threads, address: str) -> None:
    connect(reactor, address)
    assert [client[:2] for client in reactor.tcpClients] == [(address, 8444)]
    assert reactor.pool.waiting == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), DNSLookupError),
        (UnicodeError("label too long"), DNSLookupError),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError),
        ([], DNSLookupError),
    ],
)
def test_whoever_connects_hears_why_there_is_no_address(
    reactor: Threads, answers: list[Any], said: Any, kind: type[Exception]
) -> None:
    answers.append(said)
    heard: list[Any] = []
    connect(reactor, "host.example").addErrback(heard.append)
    reactor.pool.run()
    (failure,) = heard
    assert type(failure.value) is kind


def test_who_asks_for_the_same_waits_for_the_same_answer(
    reactor: Threads, answers: list[Any]
) -> None:
    answers += [FOUND, FOUND]
    outcomes: list[Any] = []
    gives_up, *others = [connect(reactor, "host.example") for _ in range(100)]
    gives_up.addErrback(outcomes.append)
    gives_up.cancel()
    assert len(outcomes) == 1
    assert len(reactor.pool.waiting) == 1
    reactor.pool.run()
    assert len(reactor.tcpClients) == 99
    another = connect(reactor, "host.example")
    assert len(reactor.pool.waiting) == 1, "an answer is not remembered"
    for connecting in (*others, another):
        connecting.addErrback(lambda _: None)
        connecting.cancel()


def test_a_resolver_that_was_installed_is_asked(reactor: Threads) -> None:
    asked: list[str] = []

    class Own:
        def resolveHostName(self, receiver: Any, host: str, **_: Any) -> None:
            asked.append(host)
            receiver.resolutionComplete()

    reactor.nameResolver = Own()
    alsoProvides(reactor, IReactorPluggableNameResolver)
    connect(reactor, "host.example").addErrback(lambda _: None)
    assert asked == ["host.example"]
    assert reactor.pool.waiting == []
