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
from twisted_mesh.tls.lending import Lending
from twisted_mesh.tls.record_layer import Octets

#: The largest chain that is legal has ten certificates: a leaf with 64 names of 253 bytes (17 kB), and nine CAs with
#: RSA-8192 (3 kB each). With its ClientHello and its signature a peer needs less than 48 KiB. OpenSSL's own bound is
#: 100 KiB for one message of certificates, and pyOpenSSL has no way to lower it.
MOST_BYTES = 64 * 1024
#: What a peer may say in TLS without a word for the application in it: keys that are renewed, padding. A record has
#: 16 KiB at most, and a new key is dear: it costs as much as many KiB of data, and asks for one of ours.
MOST_SILENT = 32 * 1024
_LARGEST_PIECE = 256 * 1024
#: What a byte of new keys costs; measured, so that no clock is asked for each piece of data.
_SECONDS_OF_SILENCE = 0.6e-6
#: A byte in a record of its own takes 23.
FOR_EACH_BYTE = 24
#: What a client may say before it speaks encrypted: its hello, at times twice, which takes 2 KiB each with
#: post-quantum key shares. Whoever reads the protocols in it (ALPN) copies the rest for each, in pyOpenSSL.
MOST_HELLO = 12 * 1024
TOO_LARGE = Problem(
    Code.HANDSHAKE_TOO_LARGE,
    f"the handshake was not done after {MOST_BYTES >> 10} KiB of the peer's, or began with a hello of more than "
    f"{MOST_HELLO >> 10} KiB",
    "present the chain only",
)
PUT_OFF = Problem(
    Code.HANDSHAKE_PUT_OFF,
    "handshakes from this address keep failing, and this one did not get its turn in time",
    "look in this log what fails from there",
)
SAYS_NOTHING = Problem(
    Code.TLS_ERROR,
    f"the peer sent more than {MOST_SILENT >> 10} KiB for TLS alone (new keys, padding) and no data",
    "look at the peer",
)
SPEAKS_HTTP = Problem(Code.NOT_TLS, "the peer speaks plain HTTP", "use https:// on this port")
_ENCRYPTED = b"\x17"
HTTP_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE|PRI) ")
#: The alert protocol_version (RFC 8446 section 6): a caller who reads it knows that TLS is spoken here.
TLS_IS_SPOKEN = bytes.fromhex("15030300020246")


@define(eq=False)
class HandshakeMeter:
    """Stands between TCP and TLS. Behind the handshake it bounds what the peer says to TLS alone."""

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
    keeps_hello: bool = False
    """Whether :attr:`hello` is kept, for who wants to tell what was in it."""
    hello: bytes = field(default=b"", init=False)
    """What a peer has said until the handshake was done, up to :data:`MOST_HELLO` bytes."""
    is_too_large: bool = field(default=False, init=False)
    is_plain_http: bool = field(default=False, init=False)
    _deliver: Callable[[Octets], None] = field(init=False)
    _bytes: int = field(default=0, init=False)
    _hello: int = field(default=0, init=False)
    _header: bytes = field(default=b"", init=False)
    """Of the record that is being read."""
    _rest: int = field(default=0, init=False)
    """Bytes of that record which are still to come."""
    _silent: int = field(default=0, init=False)
    """What was said since to TLS alone."""
    _unheard: int = field(default=0, init=False)
    """Bytes of which it is not known yet what they say."""
    _heard: int = field(default=0, init=False)
    """Bytes of the application's until then."""
    _piece: int = field(default=MOST_SILENT, init=False)
    """How much is taken before the next look at what it says."""
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
            if self.serves and HTTP_REQUEST.match(data):
                # OpenSSL sends no alert, and its error knows but some of the methods.
                self.is_plain_http = True
                self.protocol.transport.write(TLS_IS_SPOKEN)
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
        for name in ("dataReceived", "meter"):
            vars(self.protocol).pop(name, None)
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
        if self.serves and self._has_too_long_a_hello(data):
            most = 0
        if self.keeps_hello and len(self.hello) < MOST_HELLO:
            self.hello = (self.hello + data)[:MOST_HELLO]
        self._bytes += len(data)
        started = self.seconds()
        try:
            if most:  # OpenSSL takes no bytes for an error
                self._deliver(data[:most])
        finally:
            self._spent += self.seconds() - started
        # First of all whether it is in: the request may have come along, and be answered and over by now.
        if self.connection.is_secured:
            self.hello = b""
            self.protocol.dataReceived = self._listen
            if isinstance(self.protocol, Lending):
                self.protocol.meter = self
            if self.connection.turned_away is not None:
                self._charge()
            else:
                self._spent = 0.0
            if data[most:]:
                self._listen(data[most:])
        elif self._is_ending:
            self._charge()
        elif data[most:]:
            self.is_too_large = True
            self._charge()
            self.connection.abortConnection()

    def _has_too_long_a_hello(self, data: bytes) -> bool:
        """Follow the records up to the first that is encrypted (RFC 8446 section 5.1)."""
        at, size = 0, len(data)
        while at < size and self._header[:1] != _ENCRYPTED:
            if self._rest:
                taken = min(self._rest, size - at)
                self._rest -= taken
            else:
                header = self._header + data[at : at + 5 - len(self._header)]
                taken = len(header) - len(self._header)
                self._header = header
                if len(header) == 5:
                    self._rest = int.from_bytes(header[3:])
            if len(self._header) == 5 and not self._rest:
                self._header = b""
            self._hello += taken
            at += taken
        return self._hello > MOST_HELLO

    def _listen(self, data: Octets) -> None:
        """Pass on what comes behind the handshake; a peer that only keeps TLS busy is dropped, and charged for it."""
        at = 0
        while at < len(data):
            piece = data if not at and len(data) <= self._piece else data[at : at + self._piece]
            at += len(piece)
            self._count(len(piece), self.connection.bytes_heard)
            self._deliver(piece)
            if self.connection.is_paused:
                continue  # what it says is heard later
            self._judge_silence()
            if self._drop_silent():
                return

    def is_fair(self, came: int, heard: int) -> bool:
        """See :class:`~twisted_mesh.tls.lending.IMeter`: there is nothing to be held against the peer, or forgiven."""
        return FOR_EACH_BYTE * heard >= came and not (self._silent or self._unheard)

    def weigh(self, came: int, heard: int) -> None:
        """See :class:`~twisted_mesh.tls.lending.IMeter`."""
        self._count(came, self.connection.bytes_heard - heard)
        if not self.connection.is_paused:
            self._judge_silence()
            self._drop_silent()

    def _count(self, came: int, heard_before: int) -> None:
        # What went the short way was fair, and is neither held against the peer nor to its credit.
        if not self._unheard:
            self._heard = heard_before
        self._unheard += came

    def _drop_silent(self) -> bool:
        if self._silent <= MOST_SILENT:
            return False
        self._charge()
        self.connection.drop_for(SAYS_NOTHING)
        return True

    def _judge_silence(self) -> None:
        """See what has become of the bytes that have come; of a peer that speaks more is taken at once."""
        came, heard = self._unheard, self.connection.bytes_heard
        said = FOR_EACH_BYTE * (heard - self._heard)
        self._unheard, self._heard = 0, heard
        if said >= came:
            self._silent = max(0, self._silent - said)
            self._piece = min(2 * self._piece, _LARGEST_PIECE)
            return
        self._silent += came - said
        self._piece = MOST_SILENT
        if not said:
            self._spent += came * _SECONDS_OF_SILENCE

    @property
    def _is_ending(self) -> bool:
        return bool(self.protocol.disconnecting or self.protocol.transport.disconnecting)

    def _charge(self) -> None:
        """As soon as it is known to have failed: the next from there may come in the same turn of the reactor."""
        spent, self._spent = self._spent, 0.0
        if self.budget is not None and spent:
            self.budget.charge(self.network, spent)
