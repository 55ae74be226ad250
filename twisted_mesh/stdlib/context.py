"""What a program is given: an ``ssl.SSLContext`` that stays while what is behind it changes.

httpx, requests, aiohttp and most servers keep one context for life. So a :class:`MeshContext` has no certificate of its
own: it hands each connection a whole context that was built for the identity and the roots of the moment. Changing
one context in place, while it serves, fails handshakes that are under way.
"""

import socket
import ssl
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from attrs import evolve, frozen

from pki.errors import Malformed, Problem
from pki.spiffe import SpiffePattern
from pki.svid.chain import Verdict
from pki.svid.pin import RootPin
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import Purpose, X509Svid, certificates_pem
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.stdlib.guard import Guard, JudgedSocket
from twisted_mesh.stdlib.refusals import MeshSSLError
from twisted_mesh.stdlib.sealed import Sealed
from twisted_mesh.stdlib.settings import demand, present
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.judgement import Judgement
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where there is one
    from twisted_mesh.trust.peer_policy import PeerPolicy


@frozen(eq=False)
class Moment:
    """What an identity shows and believes now: immutable, swapped whole."""

    svid: X509Svid | None
    trust: Trust
    """Whom each context lets in is its own."""
    pin: RootPin | None = None
    """A root that is known by its fingerprint alone; only for the first word with a CA."""


class Holder(Protocol):
    """Whose contexts they are."""

    @property
    def lock(self) -> "threading.RLock":
        """Held while a judgement is made or a context is built: one for all, which a fork waits for."""
        ...

    def moment(self) -> Moment:
        """What is shown and believed now. Raises :class:`NoIdentity`."""
        ...

    def admit(self, guard: Guard) -> None:
        """A peer was let in: look after it."""
        ...

    def tell_refused(self, problems: Sequence[Problem]) -> None:
        """A peer was not."""
        ...

    def see_pins(self, pins: PinSet, verdict: Verdict, now: datetime) -> None:
        """A peer that there are pins for is good otherwise."""
        ...


@frozen(eq=False)
class _Current:
    """What one context hands out now."""

    moment: Moment
    judge: Judge
    inner: "JudgingContext"
    alpn: tuple[str, ...] | None


class JudgingContext(Sealed):
    """One whole context, for one certificate and one set of roots. Its connections have guards."""

    mesh: "MeshContext"
    sslsocket_class = JudgedSocket

    def seal(self, mesh: "MeshContext") -> None:
        """It is built."""
        self.mesh = mesh
        self._is_sealed = True

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """By the context of the moment, whichever this one is of."""
        return self.mesh.wrap_socket(*arguments, **named)

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """By the context of the moment, whichever this one is of."""
        return self.mesh.wrap_bio(*arguments, **named)

    def own_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """A socket of this one."""
        made = super().wrap_socket(*arguments, **named)
        if isinstance(made, JudgedSocket):
            made.demand_tls()
        return made

    def own_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """A connection over memory of this one."""
        return super().wrap_bio(*arguments, **named)

    def _wrap_socket(self, *arguments: Any, owner: socket.socket, **named: Any) -> Guard:
        # A server that sends no tickets says nothing after the handshake: what a client writes right behind its own
        # part would wait for an acknowledgement that is itself put off.
        with suppress(OSError):
            owner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw = super()._wrap_socket(*arguments, owner=owner, **_without_session(named))  # type: ignore[misc]
        return Guard(raw, self.mesh, owner)

    def _wrap_bio(self, *arguments: Any, owner: object, **named: Any) -> Guard:
        raw = super()._wrap_bio(*arguments, owner=owner, **_without_session(named))  # type: ignore[misc]
        return Guard(raw, self.mesh, owner)


def _without_session(named: dict[str, Any]) -> dict[str, Any]:
    if named.get("session") is not None:
        raise MeshSSLError(
            "a context of the mesh resumes no session: each connection proves who is there"
        )
    return named


class MeshContext(Sealed):
    """For servers or clients: whoever connects proves an ID that ``allow`` matches, or is refused.

    Taken for a context by whatever bypasses its methods it has no certificate and believes nobody.
    """

    _own = frozenset(("_current", "_alpn"))

    def __new__(cls, holder: Holder, allow: Iterable[SpiffePattern], **_: Any) -> Self:
        """As ``ssl.SSLContext`` is made."""
        serves = _.get("serves", False)
        protocol = ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT
        return super().__new__(cls, protocol)

    def __init__(
        self,
        holder: Holder,
        allow: Iterable[SpiffePattern],
        *,
        serves: bool,
        check_hostname: bool = False,
        require_pq: bool = False,
        policy: "PeerPolicy | None" = None,
    ) -> None:
        self._holder = holder
        self._policy = policy
        self._allow = tuple(allow)
        self._serves = serves
        self._checks_hostname = check_hostname
        self._requires_pq = require_pq
        self._alpn: tuple[str, ...] | None = None
        self._current: _Current | None = None
        demand(self, serves=serves, check_hostname=check_hostname, require_pq=require_pq)
        self._is_sealed = True

    @property
    def requires_pq(self) -> bool:
        """Whether keys are exchanged by hybrid groups alone."""
        return self._requires_pq

    def wrap_socket(  # noqa: PLR0917 - as the standard library has it
        self,
        sock: Any,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """As that of ``ssl.SSLContext``, by what is shown and believed now. Raises :class:`NoIdentity` too."""
        return self._of_the_moment().inner.own_socket(
            sock,
            server_side,
            do_handshake_on_connect,
            suppress_ragged_eofs,
            server_hostname,
            session,
        )

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As that of ``ssl.SSLContext``, by what is shown and believed now. Raises :class:`NoIdentity` too.

        Without a name to check it is a ValueError, as it is of ``wrap_socket``. The standard library checks none then:
        ``loop.start_tls`` without ``server_hostname`` comes here.
        """
        if self._checks_hostname and not server_hostname:
            raise ValueError(
                "server_hostname is needed: the name that is called is checked. Give it, or judge the server by its ID "
                "alone (client_context(check_hostname=False))"
            )
        return self._of_the_moment().inner.own_bio(
            incoming, outgoing, server_side, server_hostname, session
        )

    def _wrap_socket(self, *_: Any, **__: Any) -> Any:
        raise MeshSSLError("wrap_socket is the way into a context of the mesh")

    def _wrap_bio(self, *_: Any, **__: Any) -> Any:
        raise MeshSSLError("wrap_bio is the way into a context of the mesh")

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """As that of ``ssl.SSLContext``, for every connection from now on."""
        protocols = tuple(alpn_protocols)
        super().set_alpn_protocols(protocols)  # it says what is wrong with them
        if protocols != self._alpn:
            self._alpn = protocols

    def get_ca_certs(self, binary_form: bool = False) -> Any:
        """Of the context of the moment."""
        return self._of_the_moment().inner.get_ca_certs(binary_form)

    def cert_store_stats(self) -> dict[str, int]:
        """Of the context of the moment."""
        return self._of_the_moment().inner.cert_store_stats()

    def session_stats(self) -> dict[str, int]:
        """Of the context of the moment."""
        return self._of_the_moment().inner.session_stats()

    # what guards ask

    def judge(self, presented: Sequence[bytes]) -> Judgement:
        """The verdict on a peer by what is believed now, and how long it holds. Raises :class:`NoIdentity`."""
        purpose = Purpose.CLIENT if self._serves else Purpose.SERVER
        current = self._of_the_moment()
        with self._holder.lock:
            return current.judge.judgement(presented, purpose)

    @property
    def believed(self) -> Trust:
        """What is believed now, a root that was met included."""
        return self._of_the_moment().judge.trust

    def admit(self, guard: Guard) -> None:
        """A peer was let in."""
        self._holder.admit(guard)

    def tell_refused(self, problems: Sequence[Problem]) -> None:
        """A peer was not."""
        self._holder.tell_refused(problems)

    def _of_the_moment(self) -> _Current:
        moment, alpn = self._holder.moment(), self._alpn
        current = self._current
        if current is None or current.moment is not moment or current.alpn != alpn:
            with self._holder.lock:
                current = self._current = self._made(moment, alpn, self._current)
        return current

    def _made(
        self, moment: Moment, alpn: tuple[str, ...] | None, last: _Current | None
    ) -> _Current:
        trust = evolve(moment.trust, allow=self._allow, policy=self._policy)
        judge = (
            Judge(wall_clock, trust)
            if moment.pin is None
            else PinnedJudge(wall_clock, trust, pin=moment.pin)
        )
        judge.pin_watch = self._holder.see_pins
        if (
            last is not None
            and last.alpn == alpn
            and last.moment.svid is moment.svid
            and last.moment.trust.at_hand == moment.trust.at_hand
            and last.moment.pin == moment.pin
        ):
            inner = last.inner  # what was revoked, or who issues, is none of OpenSSL's business
        else:
            inner = self._built(moment, alpn)
        return _Current(moment, judge, inner, alpn)

    def _built(self, moment: Moment, alpn: tuple[str, ...] | None) -> JudgingContext:
        protocol = ssl.PROTOCOL_TLS_SERVER if self._serves else ssl.PROTOCOL_TLS_CLIENT
        inner = JudgingContext(protocol)
        demand(
            inner,
            serves=self._serves,
            check_hostname=self._checks_hostname,
            require_pq=self._requires_pq,
        )
        if moment.pin is not None:
            inner.verify_mode = ssl.CERT_NONE  # OpenSSL does not hold the root yet
        elif roots := moment.trust.at_hand:
            ssl.SSLContext.load_verify_locations(
                inner, cadata=certificates_pem(roots).decode("ascii")
            )
        if moment.svid is not None:
            present(inner, moment.svid)
        if self._serves:
            inner.sni_callback = self._switch
        if alpn is not None:
            inner.set_alpn_protocols(alpn)
        inner.seal(self)
        return inner

    def _switch(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> int | None:
        """At a client's hello, with a name in it or not: go on by what holds now, however long ago it connected."""
        try:
            inner = self._of_the_moment().inner
            if inner is not context:
                guard: Guard = connection._sslobj  # type: ignore[union-attr]
                guard.move_to(inner)
        except (MeshSSLError, AttributeError):
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None


def patterns(name: str, given: str | Iterable[str]) -> tuple[SpiffePattern, ...]:
    """What ``allow`` or ``server_id`` says. Raises :class:`Malformed`, also where that is nobody."""
    texts = [given] if isinstance(given, str) else list(given)
    if not texts:
        raise Malformed(f"{name} is empty, so nobody could connect: name at least one SPIFFE ID")
    try:
        return tuple(SpiffePattern.parse(text) for text in texts)
    except Malformed as error:
        raise Malformed(f"{name}: {error}") from None
