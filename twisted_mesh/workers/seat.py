"""What a worker has of its parent: its number, the sockets that it serves, and the channel to ask and to hear by."""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from pki.errors import ANY_ERROR
from twisted_mesh.http.address import CaAddress
from twisted_mesh.http.status_site import Question as PageQuestion
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.state.private import make_private_in_state
from twisted_mesh.workers.channel import Channel
from twisted_mesh.workers.messages import (
    MOST_TO_PARENT,
    MOST_TO_WORKER,
    SIGN_OF_LIFE,
    Alive,
    Answered,
    Assignment,
    FromParent,
    Listening,
    Question,
    Reread,
    Stop,
    Told,
)
from twisted_mesh.workers.relayed_client import RelayedClient

_INTERNAL = 500


class WorkingService(Protocol):
    """What a worker's service does when its parent says so."""

    @property
    def questions(self) -> Mapping[str, PageQuestion]:
        """Its pages, by path."""

    def take_up(self, texts: Mapping[str, bytes], level: str) -> None:
        """Those files were read again."""

    def stop_now(self, *, at_once: bool) -> None:
        """Stop gracefully; or cut what is under way."""


@define(eq=False)
class Seat:
    """One worker's."""

    assignment: Assignment
    channel_socket: socket.socket
    sockets: list[socket.socket]
    """In the order of the addresses."""
    lost: Callable[[], object]
    """Called when the parent is gone: nothing is heard of revocations any more."""
    _channel: "Channel[FromParent] | None" = field(default=None, init=False)
    _client: RelayedClient | None = field(default=None, init=False)
    _service: WorkingService | None = field(default=None, init=False)
    _log: Logger | None = field(default=None, init=False)
    _signs: Ticker | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)

    @property
    def number(self) -> int:
        """From 1 on."""
        return self.assignment.number

    def take_socket(self) -> socket.socket:
        """The next of those that are inherited, in the order in which the addresses are."""
        return self.sockets.pop(0)

    def share(self, most: int) -> int:
        """This worker's part of what all together may have."""
        whole, rest = divmod(most, self.assignment.count)
        return whole + (self.number <= rest)

    def memory_dir(self, state: Path) -> Path:
        """Where this worker keeps what must outlive it: no two write the same file. Raises :class:`StateError`."""
        mine = state / f"worker-{self.number}"
        with suppress(OSError):  # whoever writes there says what is wrong, and goes on
            make_private_in_state(mine)
        return mine

    def client(self, reactor: IReactor, log: Logger) -> RelayedClient:
        """Asks the CA by the parent, from :meth:`speak` on."""
        self._client = RelayedClient(reactor, CaAddress.parse(self.assignment.ca), say=self._say)
        return self._client

    def speak(self, reactor: Any, service: WorkingService, log: Logger) -> None:
        """Speak with the parent from now on, for that service."""
        self._service, self._log = service, log
        self._channel = Channel(
            FromParent, MOST_TO_WORKER, MOST_TO_PARENT, self._hear, self._is_alone, log
        )
        channel = self._channel
        self.channel_socket.setblocking(False)
        reactor.adoptStreamConnection(
            self.channel_socket.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: channel)
        )
        self.channel_socket.close()
        self._signs = Ticker(reactor, SIGN_OF_LIFE, self._live, "the channel", log)
        self._signs.start()

    def listening(self) -> None:
        """Tell the parent that the service takes connections."""
        self._say(Listening())

    def leave(self) -> None:
        """The service has ended: no parent is needed any more."""
        self._is_over = True
        if self._signs is not None:
            self._signs.stop()

    def _live(self) -> None:
        self._say(Alive())

    def _is_alone(self) -> None:
        if not self._is_over:
            self.lost()

    def _say(self, message: Any) -> None:
        if self._channel is not None:
            self._channel.say(message)

    def _hear(self, message: FromParent) -> None:
        service = self._service
        if service is None or self._log is None:
            return
        if isinstance(message, Answered) and self._client is not None:
            self._client.answered(message)
        elif isinstance(message, Question):
            _ = spawn(self._tell(message, service), "answering the parent", self._log)
        elif isinstance(message, Reread):
            service.take_up(message.texts, message.level)
        elif isinstance(message, Stop):
            service.stop_now(at_once=message.at_once)

    async def _tell(self, question: Question, service: WorkingService) -> None:
        try:
            page = await service.questions[question.path]()
            self._say(Told(question.number, page.status, page.body))
        except ANY_ERROR:
            if self._log is not None:
                self._log.failure("a page for the parent broke", event="request-broke")
            self._say(Told(question.number, _INTERNAL, b"{}"))
