"""The one door to a connection: nothing goes through before the peer was judged, whoever asks, and however.

``ssl.SSLSocket`` and ``ssl.SSLObject`` do all that they do through the ``_sslobj`` that their context has made.
Contexts of the mesh put a :class:`Guard` there. So a ``recv`` that shakes hands by itself, a ``sendfile``, an
``unwrap`` and whoever reaches for ``_sslobj`` come by here too.
"""

import errno
import socket
import ssl
import threading
import time
import weakref
from _ssl import ENCODING_DER
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem, printable
from twisted_mesh.stdlib.refusals import (
    MeshSSLError,
    NoIdentity,
    PeerRefused,
    explain,
    openssls_objection,
)
from twisted_mesh.tls.hybrid import classical
from twisted_mesh.trust.judgement import Judgement

if TYPE_CHECKING:
    from twisted_mesh.stdlib.context import MeshContext

#: What says nothing of the peer and does nothing with it.
_HARMLESS = frozenset(
    (
        "cipher",
        "compression",
        "context",
        "group",
        "owner",
        "pending",
        "selected_alpn_protocol",
        "server_hostname",
        "server_side",
        "session_reused",
        "shared_ciphers",
        "version",
    )
)
#: Of another handshake, on a connection that was judged by the first.
_REFUSED = frozenset(("verify_client_post_handshake",))


class Guard:
    """What stands in the place of the ``_sslobj`` of one connection."""

    __slots__ = (
        "__weakref__",
        "_begins",
        "_ends",
        "_is_inherited",
        "_is_judged",
        "_mesh",
        "_owner",
        "_presented",
        "_raw",
        "_refusal",
        "_shaking",
        "_spiffe_id",
    )

    _begins: float
    _ends: float
    _is_inherited: bool
    _is_judged: bool
    _mesh: "MeshContext"
    _owner: "weakref.ref[object]"
    _presented: tuple[bytes, ...]
    _raw: Any
    _refusal: tuple[Problem, ...]
    _shaking: "threading.RLock"
    _spiffe_id: str

    def __init__(self, raw: Any, mesh: "MeshContext", owner: object) -> None:
        set_own = object.__setattr__
        set_own(self, "_raw", raw)
        set_own(self, "_mesh", mesh)
        set_own(self, "_owner", weakref.ref(owner))
        set_own(self, "_is_judged", False)
        set_own(self, "_is_inherited", False)
        set_own(self, "_refusal", ())
        set_own(self, "_shaking", threading.RLock())
        set_own(self, "_presented", ())
        set_own(self, "_spiffe_id", "")
        set_own(self, "_begins", 0.0)
        set_own(self, "_ends", 0.0)

    def __getattr__(self, name: str) -> Any:
        if name in _REFUSED:
            raise MeshSSLError(f"{name} is not for connections of the mesh")
        if name not in _HARMLESS:
            self._admitted()
        return getattr(self._raw, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "session" and value is None:
            return
        raise MeshSSLError(f"{name} of a connection of the mesh cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise MeshSSLError(f"{name} of a connection of the mesh cannot be changed")

    # what an _sslobj has

    def do_handshake(self) -> None:
        """Shake hands, and judge the peer.

        One thread does, and whoever else comes first waits for it: of a handshake in two threads at once OpenSSL makes
        whatever its memory holds then, and the peer is nobody yet.
        """
        with self._shaking:
            self._unless_refused()
            try:
                self._raw.do_handshake()
            except ssl.SSLError as error:
                objection = openssls_objection(error)
                if objection is None:
                    explain(error)
                    raise
                raise self._refused((objection,)) from error
            if not self._is_judged:
                self._judge()

    def read(self, *arguments: Any) -> Any:
        """Read, from a peer that was let in, and still is afterwards."""
        return self._through(self._raw.read, arguments)

    def write(self, data: Any) -> Any:
        """Write, to a peer that was let in."""
        return self._through(self._raw.write, (data,))

    # what the mesh asks

    @property
    def spiffe_id(self) -> str:
        """Who is there. Shakes hands where nobody has yet; raises as all the rest does."""
        self._admitted()
        return self._spiffe_id

    @property
    def ends(self) -> float:
        """Until when the verdict on the peer is one, as far as the clock is concerned: POSIX time."""
        return self._ends

    def move_to(self, context: ssl.SSLContext) -> None:
        """Go on with the handshake under ``context``."""
        self._raw.context = context

    def inherit(self) -> None:
        """Belong to a process that was forked: the connection is the parent's too."""
        object.__setattr__(self, "_is_inherited", True)

    def review(self) -> None:
        """Judge the peer once more, by what is believed now, and end it if it is not good any more. Never raises."""
        if not self._is_judged or self._refusal:
            return
        try:
            problems = self._problems()
        except NoIdentity as error:
            problems = (error.problem,)
        if problems:
            self.end(problems)

    def end(self, problems: tuple[Problem, ...], *, closing: bool = False) -> None:
        """Nothing goes through from now on; whoever waits for it wakes up, where there is a socket to be shut.

        ``closing``: for no fault of the peer's, so that what another process may be using stays open.
        """
        if self._refusal:
            return
        self._refuse(problems, shut=not (closing and self._is_inherited))

    # how

    def _through(self, do: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._admitted()
        try:
            done = do(*arguments)
        except OSError:
            self._unless_refused()
            raise
        self._unless_refused()
        return done

    def _admitted(self) -> None:
        """Return if the peer was judged and is let in; shake hands first, if nobody has. Raises otherwise."""
        if not self._is_judged:
            self.do_handshake()
        elif not self._begins <= time.time() <= self._ends:
            self.review()
        self._unless_refused()

    def _unless_refused(self) -> None:
        if self._refusal:
            raise PeerRefused(self._refusal)

    def _judge(self) -> None:
        """Judge the peer once the handshake is done. Raises :class:`PeerRefused`, :class:`NoIdentity`."""
        try:
            object.__setattr__(self, "_presented", _presented(self._raw))
            problems = self._objections() or self._problems()
        except NoIdentity as error:
            self._refuse((error.problem,))
            raise
        if problems:
            raise self._refused(problems)
        object.__setattr__(self, "_is_judged", True)
        self._mesh.admit(self)
        # What was heard while it was being put on the list.
        self.review()
        self._unless_refused()

    def _objections(self) -> tuple[Problem, ...]:
        """What is wrong with the connection itself, whatever somebody has made of its context."""
        version = self._raw.version()
        if version != "TLSv1.3":
            said = f"the peer was spoken to in {version}, and the mesh speaks TLS 1.3"
            return (Problem(Code.PROTOCOL_VERSION, said, "have it speak TLS 1.3"),)
        if self._raw.session_reused:
            said = "a session was resumed, in which nobody proves who they are"
            return (Problem(Code.TLS_ERROR, said, "connect anew"),)
        if self._mesh.requires_pq:
            # That OpenSSL was told which groups to take is not enough: what cannot be seen is refused.
            tell = getattr(self._raw, "group", None)
            objection = classical((tell() if tell is not None else None) or "")
            return () if objection is None else (objection,)
        return ()

    def _problems(self) -> tuple[Problem, ...]:
        """What is wrong with the peer by what is believed now. Raises :class:`NoIdentity` alone."""
        try:
            judgement = self._mesh.judge(self._presented)
            if judgement.verdict.problems:
                return judgement.verdict.problems
            self._note(judgement)
        except NoIdentity:
            raise
        except ANY_ERROR as error:  # a bug shuts the door
            said = f"the judgement broke ({type(error).__name__}: {printable(str(error), 200)})"
            return (Problem(Code.INTERNAL, said, "report it, with the log"),)
        return ()

    def _note(self, judgement: Judgement) -> None:
        if not judgement.verdict.ok:
            raise AssertionError("a verdict that is neither good nor bad")
        object.__setattr__(self, "_begins", judgement.since.timestamp())
        object.__setattr__(self, "_ends", judgement.until.timestamp())
        object.__setattr__(self, "_spiffe_id", str(judgement.verdict.spiffe_id))

    def _refused(self, problems: tuple[Problem, ...]) -> PeerRefused:
        """The error to be raised of a peer that is not let in."""
        self._refuse(problems)
        error = PeerRefused(problems)
        self._mesh.tell_refused(error.problems)
        return error

    def _refuse(self, problems: tuple[Problem, ...], *, shut: bool = True) -> None:
        object.__setattr__(self, "_refusal", problems)
        owner = self._owner()
        if shut and isinstance(owner, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(owner, socket.SHUT_RDWR)


class _Whole:
    """As much of an ``ssl.SSLObject`` as its public methods ask for."""

    def __init__(self, raw: Any) -> None:
        self._sslobj = raw


def _presented(raw: Any) -> tuple[bytes, ...]:
    """The chain that the peer sent, in DER, leaf first; empty where it sent none.

    Public since Python 3.13; before, the same thing below it.
    """
    public = getattr(ssl.SSLObject, "get_unverified_chain", None)
    if public is not None:
        return tuple(public(_Whole(raw)))
    chain = raw.get_unverified_chain() or ()
    return tuple(cert.public_bytes(ENCODING_DER) for cert in chain)


class JudgedSocket(ssl.SSLSocket):
    """A socket of the mesh. Once it was wrapped, nothing is read from it past its guard."""

    _context: ssl.SSLContext
    _sslobj: Any
    _is_plain = True
    """Whether it may be used without TLS: while it is made, which looks for what came too early, and once unwrapped."""
    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool

    @property
    def context(self) -> ssl.SSLContext:
        """The context that is in use."""
        return self._context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        raise MeshSSLError("context of a connection of the mesh cannot be changed")

    def demand_tls(self) -> None:
        """It is made."""
        self._is_plain = False

    def unwrap(self) -> socket.socket:
        """As that of ``ssl.SSLSocket``: both sides have ended TLS, and go on in the clear."""
        plain = super().unwrap()
        self._is_plain = True
        return plain

    def shutdown(self, how: int) -> None:
        """Shut it. The base class forgets TLS with it, and would then read what comes as it comes."""
        socket.socket.shutdown(self, how)

    def connect(self, address: Any) -> None:
        """Connect, shake hands and judge; whatever fails on the way, nothing can be sent in the clear then."""
        self._connected_or_closed(address, super().connect)

    def connect_ex(self, address: Any) -> int:
        """The same, with an error's number for an error."""
        return int(self._connected_or_closed(address, super().connect_ex) or 0)

    def _connected_or_closed(
        self, address: Any, connect: Callable[[Any], int | None]
    ) -> int | None:
        try:
            return connect(address)
        except BaseException:
            self.close()
            raise

    def accept(self) -> tuple[ssl.SSLSocket, Any]:
        """The next connection, under the context of the moment and not of when this one began to listen."""
        connected, address = socket.socket.accept(self)
        mesh: MeshContext = self._context.mesh  # type: ignore[attr-defined]
        try:
            wrapped = mesh.wrap_socket(
                connected,
                server_side=True,
                do_handshake_on_connect=self.do_handshake_on_connect,
                suppress_ragged_eofs=self.suppress_ragged_eofs,
            )
        except BaseException:
            connected.close()
            raise
        return wrapped, address


def _by_tls(name: str) -> Any:
    """A method of ``ssl.SSLSocket``, which without TLS would be that of a plain socket.

    So it is where a peer was gone before it was wrapped (CVE-2023-40217): what it had sent before was read as its own.
    """
    base: Callable[..., Any] = getattr(ssl.SSLSocket, name)

    @wraps(base)
    def by_tls(self: JudgedSocket, *arguments: Any, **named: Any) -> Any:
        if self._sslobj is None and not self._is_plain:
            raise OSError(errno.ENOTCONN, f"{name}: there is no TLS on this socket of the mesh yet")
        return base(self, *arguments, **named)

    return by_tls


for _name in (
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "send",
    "sendall",
    "sendfile",
    "sendto",
):
    setattr(JudgedSocket, _name, _by_tls(_name))
