"""A peer that is who it says and may not connect: it is told so inside TLS, and gets no further.

There is no way from here to the application: what the peer says goes to an :class:`Explanation`, which knows
nobody, and what that answers is all that is ever sent. The connection counts as unproven until it is closed.
"""

import typing
from collections.abc import Callable, Sequence

from attrs import define, field

from pki.errors import Problem
from twisted_mesh.trust.connections import Peer

#: Of what the peer says, question and all, so much is read, that an upload hears the answer before we close.
MOST_BYTES = 64 * 1024


class Explanation(typing.Protocol):
    """What such a peer is told, in the language of the port. It opens nothing and waits for nothing."""

    def hear(self, data: bytes) -> bytes:
        """What is answered once these bytes have come too; empty as long as the question is not whole."""

    def out_of_time(self) -> bytes:
        """What is answered to whoever has not asked in time."""


Explain = Callable[[Peer, Problem], Explanation]
"""Of a peer, and of why it may not connect."""


class Door(typing.Protocol):
    """The connection of such a peer, as far as it matters here."""

    def write(self, data: bytes) -> None:
        """Send it."""

    def loseConnection(self) -> None:
        """Say goodbye, and be gone within seconds."""

    def abortConnection(self) -> None:
        """Close at once."""

    def hear_no_more(self, problems: Sequence[Problem]) -> None:
        """Have :meth:`loseConnection` take no longer than it does where a right has ended."""

    def objections_besides(self) -> Sequence[Problem]:
        """Judge the peer again: what there is to object besides that it may not connect."""


@define(eq=False)
class TurnedAway:
    """One such peer, from the end of its handshake on. To the reviewer it is a connection like others."""

    peer: Peer
    explanation: Explanation
    door: Door
    _heard: int = field(default=0, init=False)
    _is_answered: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    """Whether there is more to object by now: then it is not told any more."""

    def hear(self, data: bytes) -> None:
        """Take what the peer says, and answer once; drop all else, up to :data:`MOST_BYTES`."""
        self._heard += len(data)
        if not self._is_answered and not self._is_over:
            self._answer(self.explanation.hear(data[:MOST_BYTES]))
        if self._heard > MOST_BYTES:
            self.door.abortConnection()

    def out_of_time(self) -> bool:
        """Answer whoever has asked nothing; False where there is nothing to say any more."""
        if self._is_answered or self._is_over:
            return False
        self._answer(self.explanation.out_of_time())
        return True

    def objections(self) -> Sequence[Problem]:
        """What has come up since: its revocation, say. Who may connect by now has to come again."""
        return self.door.objections_besides()

    def hear_no_more(self, problems: Sequence[Problem]) -> None:
        """Say nothing either: what it is told is for those whose certificate is good."""
        self._is_over = True
        self.door.hear_no_more(problems)

    def sever(self, problems: Sequence[Problem]) -> None:
        """Close; at once where it was given its time already."""
        self.hear_no_more(problems)
        if self._is_answered:
            self.door.abortConnection()
        else:
            self.door.loseConnection()

    def _answer(self, answer: bytes) -> None:
        if answer and (problems := self.objections()):
            self.sever(problems)
        elif answer:
            self._is_answered = True
            self.door.write(answer)
            self.door.loseConnection()
