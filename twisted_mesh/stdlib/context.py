"""What a program is given: an ``ssl.SSLContext`` that stays while what is behind it changes.

httpx, requests, aiohttp and most servers keep one context for life. So a :class:`MeshContext` has no certificate of its
own: it hands each connection a whole context that was built for the identity and the roots of the moment. Changing
one context in place, while it serves, fails handshakes that are under way.
"""

import os
import secrets
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self

from attrs import evolve, frozen
from cryptography.hazmat.primitives import serialization

from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.chain import Verdict
from pki.svid.pin import RootPin
from pki.svid.x509svid import Purpose, X509Svid, certificates_pem
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.stdlib.guard import Guard, JudgedSocket
from twisted_mesh.stdlib.refusals import ContextSealed, MeshSSLError, NoHybridGroup
from twisted_mesh.trust.judge import Judge, PinnedJudge, Trust

#: The one hybrid group that every OpenSSL with any of them has (RFC 9794, draft-ietf-tls-ecdhe-mlkem).
HYBRID_GROUP = "X25519MLKEM768"


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


@frozen(eq=False)
class _Current:
    """What one context hands out now."""

    moment: Moment
    judge: Judge
    inner: "JudgingContext"
    alpn: tuple[str, ...] | None


class _Sealed(ssl.SSLContext):
    """A context of which nothing can be changed once it is sealed."""

    _is_sealed = False

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._is_sealed or name in self._own:
            super().__setattr__(name, value)
            return
        if name == "options":
            # Every library adds some. None can be taken away; what is added has no effect.
            if value & self.options == self.options:
                return
        elif (name == "post_handshake_auth" and not value) or getattr(
            self, name, _NOTHING
        ) == value:
            return
        raise ContextSealed(
            f"{name} of a context of the mesh cannot be changed: it stands for TLS 1.3, a certificate on both sides "
            "and the mesh's judgement"
        )

    def __delattr__(self, name: str) -> None:
        raise ContextSealed(f"{name} of a context of the mesh cannot be removed")

    _own: frozenset[str] = frozenset()

    def load_verify_locations(self, *_: Any, **__: Any) -> None:
        """Without effect, as requests says it of every context: whom it believes the mesh says."""

    def load_default_certs(self, *_: Any, **__: Any) -> None:
        """Without effect."""

    def set_default_verify_paths(self) -> None:
        """Without effect."""


_NOTHING = object()


def _refusing(name: str) -> Any:
    def refuse(self: ssl.SSLContext, *_: Any, **__: Any) -> Any:
        raise ContextSealed(f"{name}: a context of the mesh is the mesh's to configure")

    refuse.__name__ = name
    refuse.__doc__ = "Refused."
    return refuse


for _name in (
    "load_cert_chain",
    "load_dh_params",
    "set_ciphers",
    "set_ciphersuites",
    "set_ecdh_curve",
    "set_groups",
    "set_npn_protocols",
    "set_psk_client_callback",
    "set_psk_server_callback",
    "set_client_sigalgs",
    "set_server_sigalgs",
    "set_servername_callback",
):
    # Also what this Python does not know yet.
    setattr(_Sealed, _name, _refusing(_name))


class JudgingContext(_Sealed):
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
        return super().wrap_socket(*arguments, **named)

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


class MeshContext(_Sealed):
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
    ) -> None:
        self._holder = holder
        self._allow = tuple(allow)
        self._serves = serves
        self._checks_hostname = check_hostname
        self._requires_pq = require_pq
        self._alpn: tuple[str, ...] | None = None
        self._current: _Current | None = None
        _demand(self, serves=serves, check_hostname=check_hostname, require_pq=require_pq)
        self._is_sealed = True

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
        """As that of ``ssl.SSLContext``, by what is shown and believed now. Raises :class:`NoIdentity` too."""
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

    def judge(self, presented: Sequence[bytes]) -> Verdict:
        """The verdict on a peer by what is believed now. Raises :class:`NoIdentity`."""
        purpose = Purpose.CLIENT if self._serves else Purpose.SERVER
        current = self._of_the_moment()
        with self._holder.lock:
            return current.judge.verdict_on_der(presented, purpose)

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
        trust = evolve(moment.trust, allow=self._allow)
        judge = (
            Judge(wall_clock, trust)
            if moment.pin is None
            else PinnedJudge(wall_clock, trust, pin=moment.pin)
        )
        if (
            last is not None
            and last.alpn == alpn
            and last.moment.svid is moment.svid
            and last.moment.trust.bundles == moment.trust.bundles
            and last.moment.pin == moment.pin
        ):
            inner = last.inner  # what was revoked, or who issues, is none of OpenSSL's business
        else:
            inner = self._built(moment, alpn)
        return _Current(moment, judge, inner, alpn)

    def _built(self, moment: Moment, alpn: tuple[str, ...] | None) -> JudgingContext:
        protocol = ssl.PROTOCOL_TLS_SERVER if self._serves else ssl.PROTOCOL_TLS_CLIENT
        inner = JudgingContext(protocol)
        _demand(
            inner,
            serves=self._serves,
            check_hostname=self._checks_hostname,
            require_pq=self._requires_pq,
        )
        if moment.pin is not None:
            inner.verify_mode = ssl.CERT_NONE  # OpenSSL does not hold the root yet
        elif roots := moment.trust.bundles.all_roots:
            ssl.SSLContext.load_verify_locations(
                inner, cadata=certificates_pem(roots).decode("ascii")
            )
        if moment.svid is not None:
            _show(inner, moment.svid)
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


def _demand(
    context: ssl.SSLContext, *, serves: bool, check_hostname: bool, require_pq: bool
) -> None:
    """Demand what every context of the mesh does."""
    # Both: a machine's openssl.cnf may say something lower.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = check_hostname
    context.hostname_checks_common_name = False  # it is no name of a host, and not unique
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    if serves:
        context.num_tickets = 0
    if require_pq:
        insist_on_hybrid(context)


def insist_on_hybrid(context: ssl.SSLContext) -> None:
    """Offer and take no other key exchange. Raises :class:`NoHybridGroup`."""
    set_groups = getattr(ssl.SSLContext, "set_groups", None)
    try:
        if set_groups is None:
            raise NoHybridGroup(
                "require_pq: this Python's ssl cannot be told which groups to take (that of Python 3.15 can), and "
                f"{ssl.OPENSSL_VERSION} does not insist on {HYBRID_GROUP} by itself: use Python 3.15, or go without"
            )
        set_groups(context, HYBRID_GROUP)
    except ssl.SSLError as error:
        if isinstance(error, NoHybridGroup):
            raise
        raise NoHybridGroup(
            f"require_pq: {ssl.OPENSSL_VERSION} has no {HYBRID_GROUP}: use a Python with OpenSSL 3.5 or later"
        ) from None


def _show(context: ssl.SSLContext, svid: X509Svid) -> None:
    """Present ``svid``. The standard library takes a certificate and its key from files alone."""
    password = secrets.token_hex(32)
    with _as_file(svid, password) as path:
        ssl.SSLContext.load_cert_chain(context, path, password=password)


@contextmanager
def _as_file(svid: X509Svid, password: str) -> Any:
    """Chain and key as a file: one in memory where there are such; else one whose key is encrypted, gone at once."""
    key = svid.key.private_key
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("mesh", os.MFD_CLOEXEC)
        try:
            path = Path(f"/proc/self/fd/{descriptor}")
            if path.exists():
                plain = key.private_bytes(pem, form, serialization.NoEncryption())
                os.write(descriptor, svid.chain_pem() + plain)
                yield path
                return
        finally:
            os.close(descriptor)
    sealed = key.private_bytes(pem, form, serialization.BestAvailableEncryption(password.encode()))
    with tempfile.NamedTemporaryFile(prefix="mesh-") as file:
        file.write(svid.chain_pem() + sealed)
        file.flush()
        yield Path(file.name)
