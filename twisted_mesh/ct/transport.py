"""How a log is asked: over TLS to the key that its entry in the list pins, or by the web's CAs.

Connections are kept for the next question, and bounded in all respects. No redirection is followed and no proxy is
asked. ``gzip`` is understood, as C2SP's static-ct-api demands of readers, and unfolded no further than the answer may
be long.
"""

import zlib
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Self

import msgspec
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from pki.ct.errors import LogAway
from pki.errors import PkiError, printable
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.ct.errors import LogBusy, LogUnusable, NotInLog
from twisted_mesh.http.address import server_name
from twisted_mesh.http.https_client import WebUrl
from twisted_mesh.http.kept_connection import Answered, KeptConnection
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.alerts import PeerRefused, RefusedByPeer, alert_of, as_error
from twisted_mesh.tls.pinned_client import PinnedEndpoint, PinnedTls, PinnedVisit
from twisted_mesh.tls.self_signed import SelfSigned
from twisted_mesh.tls.web_client import WebClientEndpoint, WebTrust, WebVisit

#: Questions to one log that are under way at once; the others wait, within the same time.
MOST_AT_ONCE = 8
#: Seconds for one question, connecting and waiting for a free connection included.
TIMEOUT = 5.0
#: Bytes of an answer with a status that is no 200: what it says is for people.
_OTHER_ANSWER = 16 * 1024
_OK, _NOT_FOUND, _REDIRECTIONS = 200, 404, range(300, 400)
_LONGEST_PAUSE = 3600
_RULE = "tls_pins in the list of logs"
_REMEDY = (
    "compare with what the log prints when it starts: where it has another key now, have the list say so; else "
    "somebody else answers"
)


class Refusal(msgspec.Struct):
    """Why a log does not do it, as ours and others tell it."""

    code: str = ""
    detail: str = ""
    error_message: str = ""

    @classmethod
    def of(cls, body: bytes) -> Self:
        """What the body of an answer tells; nothing where it is none of these."""
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError):
            return cls()

    @property
    def said(self) -> str:
        """In words; empty where it does not say."""
        return printable(self.detail or self.error_message, 400)


@define(eq=False, repr=False)
class LogTransport:
    """Asks at one URL. Whatever goes wrong is a :class:`PkiError`: :class:`LogAway` where it may go right later.

    Each question may be asked twice, where the connection was lost that it was asked on first: all that is asked of a
    log may be.
    """

    reactor: IReactor
    url: WebUrl
    """What comes before the path of each question, without a slash at its end."""
    pins: Collection[SpkiHash] = ()
    """The keys of which the server must have one; none: the web's CAs say who it is."""
    own: SelfSigned | None = None
    """What we prove ourselves by, where only some may ask."""
    timeout: float = TIMEOUT
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone."""
    _free: list[KeptConnection] = field(factory=list, init=False)
    """Kept for the next question, the last one used at the end."""
    _places: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(MOST_AT_ONCE), init=False)
    _tls: PinnedTls | WebTrust = field(init=False)

    def __attrs_post_init__(self) -> None:
        pins, pq = frozenset(self.pins), self.requires_pq
        self._tls = (
            PinnedTls(self.own, pins, _RULE, _REMEDY, requires_pq=pq)
            if pins
            else WebTrust(self.reactor, None, requires_pq=pq, own=self.own)
        )

    async def get(self, path: str, limit: int, timeout: float | None = None) -> bytes:
        """The body of a 200, at most ``limit`` bytes once it is unfolded. Raises :class:`LogUnusable` for another."""
        answered = await self.ask(path, limit, timeout=timeout)
        where = f"{self.url}{path}"
        if answered.status in _REDIRECTIONS:
            raise LogUnusable(
                f"{where} answers {answered.status}: redirections are not followed, name the place itself"
            )
        self.refuse_away(answered)
        if answered.status == _NOT_FOUND:
            raise NotInLog(
                f"{where} is not there ({answered.status}): look whether the URL is right"
            )
        if answered.status != _OK:
            raise LogUnusable(f"{where} answers {answered.status}: look whether the URL is right")
        return answered.body

    def refuse_away(self, answered: Answered) -> None:
        """Raises :class:`LogAway` for an answer that asks to come again later (429, 5xx)."""
        if answered.status == 429 or answered.status >= 500:
            plain = printable(answered.body.decode("utf-8", "replace"), 200)
            said = Refusal.of(answered.body).said or plain
            raise LogBusy(
                f"the log at {self.url} answers {answered.status}: {said or 'and does not say why'}",
                _pause(answered.headers.get("retry-after")),
            )

    async def ask(
        self,
        path: str,
        limit: int,
        *,
        method: str = "GET",
        body: bytes | None = None,
        timeout: float | None = None,
    ) -> Answered:
        """What is answered, whatever its status; a body of at most ``limit`` bytes.

        ``timeout`` is how many seconds that may take, where it is another time than all else has.
        """
        request = self._request(method, path, body)
        attempt = _Attempt(self, timeout or self.timeout)
        try:
            answered = await within(
                self.reactor, attempt.seconds, self._exchange(request, attempt, limit)
            )
        except Exception as error:
            raise attempt.explained(error) from None
        most = limit if answered.status == _OK else min(limit, _OTHER_ANSWER)
        return Answered(
            answered.status, unfolded(answered, most, f"{self.url}{path}"), answered.headers
        )

    def hang_up(self) -> None:
        """Keep no connection. Questions that are under way go on."""
        free, self._free = self._free, []
        for connection in free:
            connection.close()

    async def _exchange(self, request: bytes, attempt: "_Attempt", limit: int) -> Answered:
        await self._places.acquire()
        try:
            with suppress(ConnectionDone, ConnectionLost):
                return await self._on(await self._connection(attempt), request, limit)
            # The others were made to the same process, which is gone.
            self.hang_up()
            return await self._on(await attempt.connect(), request, limit)
        finally:
            self._places.release()

    async def _on(self, connection: KeptConnection, request: bytes, limit: int) -> Answered:
        answered = await connection.ask(request, max(limit, _OTHER_ANSWER))
        if connection.is_open:
            if len(self._free) < MOST_AT_ONCE:
                self._free.append(connection)
            else:
                connection.close()
        return answered

    async def _connection(self, attempt: "_Attempt") -> KeptConnection:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                attempt.reach = connection.reach
                return connection
        return await attempt.connect()

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        authority, _, prefix = self.url.text.partition("://")[2].partition("/")
        target = f"/{prefix}{path}" if prefix else path
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {authority}",
            "Accept-Encoding: gzip, identity",
        ]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join((*lines, "", "")).encode("ascii") + (body or b"")


@define(eq=False, repr=False)
class _Attempt:
    """One question, and the connections that it is asked on."""

    transport: LogTransport
    seconds: float
    reach: Reach = field(init=False)
    visit: PinnedVisit | WebVisit | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.reach = self._new_reach()

    def _new_reach(self) -> Reach:
        url = self.transport.url
        where = printable(str(url), 200)
        start = "start it (twistd -n mesh-ctlog), or check its URL in the list of logs"
        return Reach(where, url.host, who="log", start=start, seconds=self.seconds)

    async def connect(self) -> KeptConnection:
        """A new connection."""
        self.reach = self._new_reach()
        factory = Factory.forProtocol(lambda: KeptConnection(self.reach, _OTHER_ANSWER))
        factory.noisy = False
        connecting: Deferred[Any] = self._endpoint().connect(factory)
        return await connecting  # type: ignore[no-any-return]

    def _endpoint(self) -> IStreamClientEndpoint:
        transport, url = self.transport, self.transport.url
        tcp = self.reach.watch(HostEndpoint(transport.reactor, url.host, url.port, self.seconds))
        if url.scheme == "http":
            return tcp
        if isinstance(transport._tls, PinnedTls):
            self.visit = PinnedVisit(transport._tls)
            return PinnedEndpoint(tcp, self.visit, transport.reactor)
        self.visit = WebVisit(transport._tls, url.host, server_name(url.host))
        return WebClientEndpoint(tcp, self.visit, transport.reactor)

    def explained(self, error: Exception) -> PkiError:
        """What went wrong, as one of ours."""
        if isinstance(error, PkiError):
            return error
        if self.visit is not None and self.visit.problem is not None:
            return PeerRefused((self.visit.problem,))
        told = as_error(error, self.reach)
        if alert_of(error) is None:
            return LogAway(str(told))
        # That we are turned away in the handshake is no matter of time.
        own = self.transport.own
        if own is None:
            return told
        (problem,) = told.problems
        return RefusedByPeer(
            evolve(
                problem,
                detail=f"the log at {self.reach.where} does not take our key: {problem.detail}",
                remedy=f"tell it of this CA's key: mesh-ctlog --accept-ca ID={own.pin}",
            )
        )


def unfolded(answered: Answered, limit: int, where: str) -> bytes:
    """The body, without its compression; at most ``limit`` bytes. Raises :class:`LogUnusable`."""
    encoding = answered.headers.get("content-encoding", "identity").lower()
    body = answered.body
    if encoding in ("gzip", "x-gzip"):
        inflating = zlib.decompressobj(wbits=31)
        try:
            body = inflating.decompress(body, limit + 1)
            is_whole = inflating.eof or len(body) > limit
        except zlib.error:
            is_whole = False
        if not is_whole or inflating.unused_data:
            raise LogUnusable(f"{where} answers with gzip that is damaged or cut short")
    elif encoding != "identity":
        raise LogUnusable(
            f"{where} answers in the encoding {printable(encoding, 40)!r}, which was not asked for"
        )
    if len(body) > limit:
        raise LogUnusable(f"{where} answers with more than {limit} bytes")
    return body


def _pause(said: str | None) -> float | None:
    """Seconds that Retry-After asks for; None for what is no whole number of them."""
    if said is None or not (said.isascii() and said.isdigit() and len(said) <= 9):
        return None
    return float(min(int(said), _LONGEST_PAUSE))
