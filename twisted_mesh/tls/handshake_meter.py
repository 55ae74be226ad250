"""What a handshake may cost: its bytes are counted, and its time is charged to whoever lets it fail."""

import re
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.limits.connection_limit import Place
from twisted_mesh.limits.handshake_budget import HandshakeBudget, Turn

#: The largest chain that is legal has ten certificates: a leaf with 64 names of 253 bytes (17 kB), and nine CAs with
#: RSA-8192 (3 kB each). With its ClientHello and its signature a peer needs less than 48 KiB. OpenSSL's own bound is
#: 100 KiB for one message of certificates, and pyOpenSSL has no way to lower it.
MOST_BYTES = 64 * 1024
TOO_LARGE = Problem(
    Code.HANDSHAKE_TOO_LARGE,
    f"the handshake was not done after {MOST_BYTES >> 10} KiB of the peer's",
    "present the chain only",
)
PUT_OFF = Problem(
    Code.HANDSHAKE_PUT_OFF,
    "handshakes from this address keep failing, and this one did not get its turn in time",
    "look in this log what fails from there",
)
SPEAKS_HTTP = Problem(Code.NOT_TLS, "the peer speaks plain HTTP", "use https:// on this port")
_HTTP_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE|PRI) ")
#: The alert protocol_version (RFC 8446 section 6): a caller who reads it knows that TLS is spoken here.
_TLS_IS_SPOKEN = bytes.fromhex("15030300020246")


@define(eq=False)
class HandshakeMeter:
    """Stands between TCP and TLS until the handshake is over; then it takes itself away."""

    protocol: Any
    """Twisted's TLS over memory BIOs. What TCP delivers to it comes here first."""
    connection: Any
    """The :class:`~twisted_mesh.tls.connection.MeshConnection` above it."""
    budget: HandshakeBudget | None = None
    network: str = ""
    """Whom it is charged to."""
    place: Place | None = None
    """Hears of the peer's first word."""
    seconds: Callable[[], float] = time.thread_time
    serves: bool = False
    """Whether the peer is the one that connects."""
    is_too_large: bool = field(default=False, init=False)
    is_plain_http: bool = field(default=False, init=False)
    _deliver: Callable[[bytes], None] = field(init=False)
    _bytes: int = field(default=0, init=False)
    _spent: float = field(default=0.0, init=False)
    """What has not been charged yet."""
    _held: bytes = field(default=b"", init=False)
    _turn: Turn | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._deliver = self.protocol.dataReceived
        self.protocol.dataReceived = self.receive

    @property
    def problem(self) -> Problem | None:
        """Why this has ended the handshake, if it has."""
        if self.is_too_large:
            return TOO_LARGE
        if self.is_plain_http:
            return SPEAKS_HTTP
        return None if self._turn is None else PUT_OFF

    def receive(self, data: bytes) -> None:
        """Pass on what a peer says, if it is its turn; else keep it, and hear no more until it is."""
        if not self._bytes:
            if self.place is not None:
                self.place.speak()
            if self.serves and _HTTP_REQUEST.match(data):
                # OpenSSL sends no alert, and its error knows but some of the methods.
                self.is_plain_http = True
                self.protocol.transport.write(_TLS_IS_SPOKEN)
        if self._turn is not None:
            self._held += data  # was on its way when the reading stopped
            return
        if self.budget is not None:
            self._turn = self.budget.enter(self.network, self._go_on)
        if self._turn is None:
            self._pass(data)
        else:
            self._held = data
            self.protocol.transport.pauseProducing()

    def over(self, *, succeeded: bool) -> None:
        """The connection is lost. Whoever did not get in is charged."""
        if self._turn is not None and self.budget is not None:
            self.budget.forget(self._turn)
        if not succeeded:
            self._charge()

    def _go_on(self) -> None:
        data, self._held, self._turn = self._held, b"", None
        if self._is_ending:
            return
        # Before anybody above hears of it: who is above may want to pause the peer itself.
        self.protocol.transport.resumeProducing()
        self._pass(data)

    def _pass(self, data: bytes) -> None:
        """No more than a handshake may have; behind its end there may be as much as there is."""
        most = MOST_BYTES - self._bytes
        self._bytes += len(data)
        started = self.seconds()
        try:
            self._deliver(data[:most])
        finally:
            self._spent += self.seconds() - started
        # First of all whether it is in: the request may have come along, and be answered and over by now.
        if self.connection.is_secured:
            del self.protocol.dataReceived
            if self.connection.turned_away is not None:
                self._charge()
            if data[most:]:
                self._deliver(data[most:])
        elif self._is_ending:
            self._charge()
        elif data[most:]:
            self.is_too_large = True
            self._charge()
            self.connection.abortConnection()

    @property
    def _is_ending(self) -> bool:
        return bool(self.protocol.disconnecting or self.protocol.transport.disconnecting)

    def _charge(self) -> None:
        """As soon as it is known to have failed: the next from there may come in the same turn of the reactor."""
        spent, self._spent = self._spent, 0.0
        if self.budget is not None and spent:
            self.budget.charge(self.network, spent)
