"""The two directions of one stream: what has come and was not read yet, and what is to go and was not sent yet."""

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_mesh.grpc.framing import MessageReader, frame

Headers = list[tuple[bytes, bytes]]


class Inlet:
    """Messages that came and that nobody has taken yet.

    While any of them waits, the peer gets no new credit, so what is kept is bounded by a message and a window.
    """

    def __init__(self, most: int, credit: Callable[[int], None]) -> None:
        self._reader = MessageReader(most)
        self._credit = credit
        """Lets the peer send so many bytes more."""
        self._messages: deque[bytes] = deque()
        self._owed = 0
        self._error: Exception | None = None
        self._is_over = False
        self._waiting: Deferred[None] | None = None

    @property
    def is_between(self) -> bool:
        """Whether no message is there in part."""
        return self._reader.is_between

    def feed(self, data: bytes, credit: int) -> int:
        """Read ``data``, which took ``credit`` bytes of the window: how many messages are whole with it.

        Raises :class:`GrpcError`.
        """
        if self._is_over:
            self._credit(credit)
            return 0
        self._owed += credit
        came = list(self._reader.feed(data))
        self._messages.extend(came)
        if not self._messages:
            self._repay()
        if came:
            self._wake()
        return len(came)

    def end(self, error: Exception | None = None) -> None:
        """No more will come. With an error, what was not taken yet is not taken any more."""
        if self._is_over:
            return
        self._is_over, self._error = True, error
        if error is not None:
            self._messages.clear()
        self._repay()
        self._wake()

    async def take(self) -> bytes | None:
        """The next message as soon as it is there; None after the last. Raises what the stream ended with."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._is_over:
                return None
            self._waiting = Deferred()
            await self._waiting
        return self.take_now()

    def take_now(self) -> bytes:
        """The next message, where one is there."""
        message = self._messages.popleft()
        if not self._messages:
            self._repay()
        return message

    def _repay(self) -> None:
        owed, self._owed = self._owed, 0
        if owed:
            self._credit(owed)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


class Outlet:
    """What is to be sent, in order: messages, then perhaps trailers."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._begun = memoryview(b"")
        self._size = 0
        self.trailers: Headers | None = None
        """After the last message; they end the stream."""
        self.is_closing = False
        """Whether the last message ends the stream, without trailers: a caller's half."""
        self.drained: Callable[[], None] | None = None
        """Called when nothing is left."""

    @property
    def size(self) -> int:
        """In bytes, of what was not begun yet."""
        return self._size

    @property
    def has_data(self) -> bool:
        """Whether any bytes of a message are left."""
        return bool(self._begun) or bool(self._messages)

    @property
    def has_more(self) -> bool:
        """Whether any bytes of a message are left, or trailers."""
        return self.has_data or self.trailers is not None

    def add(self, message: bytes) -> None:
        """After all others."""
        framed = frame(message)
        self._messages.append(framed)
        self._size += len(framed)

    def replace(self, message: bytes) -> None:
        """In place of all whose first byte is not sent yet."""
        self.drop()
        self.add(message)

    def drop(self) -> None:
        """Forget all whose first byte is not sent yet."""
        self._messages.clear()
        self._size = 0

    def cut(self) -> None:
        """Forget everything, also the rest of the message that is under way."""
        self.drop()
        self._begun = memoryview(b"")

    def take(self, most: int) -> bytes:
        """Up to so many bytes of the message that is under way, or of the next one."""
        if not self._begun:
            framed = self._messages.popleft()
            self._size -= len(framed)
            self._begun = memoryview(framed)
        chunk, self._begun = bytes(self._begun[:most]), self._begun[most:]
        return chunk
