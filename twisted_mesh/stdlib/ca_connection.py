"""A CA, asked by blocking calls from a thread: over its unix socket, over mutual TLS, or plain HTTP on this machine."""

import http.client
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from attrs import define, evolve, field, frozen

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused, printable
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.pin import RootPin
from pki.svid.revocation_set import RevocationSet
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.api.ca_user import CaUser, ForeignCa
from twisted_mesh.api.refusal import CaRefused, about_its_root, told_problems
from twisted_mesh.attest.credentials import peer_uid
from twisted_mesh.http.address import CaAddress, server_name
from twisted_mesh.stdlib.context import MeshContext, Moment
from twisted_mesh.stdlib.guard import Guard
from twisted_mesh.stdlib.refusals import PeerRefused
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

_MAX_ANSWER = 32 * 1024 * 1024
_CHUNK = 256 * 1024


class CaUnreachable(PkiError):
    """There was nobody to ask, or no whole answer in time."""

    code = Code.UNREACHABLE


@define(eq=False)
class _CaHolder:
    """What the CA is shown, and by what it is judged: that it is ``/mesh/ca`` under a root that is believed."""

    trust_domain: TrustDomain
    lock: "threading.RLock" = field(factory=threading.RLock, init=False)
    now: Moment = field(init=False)
    guards: "weakref.WeakSet[Guard]" = field(factory=weakref.WeakSet, init=False)

    def __attrs_post_init__(self) -> None:
        self.now = Moment(None, Trust())

    def moment(self) -> Moment:
        return self.now

    def admit(self, guard: Guard) -> None:
        """It is asked one thing and hung up on, or kept for the next question."""
        self.guards.add(guard)

    def review(self) -> None:
        """Judge again whom we are connected to."""
        for guard in tuple(self.guards):
            guard.review()

    def tell_refused(self, problems: Sequence[Problem]) -> None:
        """Whoever asks hears of it."""

    def see_pins(self, pins: PinSet, verdict: Verdict, now: datetime) -> None:
        """The CA is held to none."""


@frozen
class _Asked:
    """One request."""

    method: str
    path: str
    data: bytes | None
    headers: Mapping[str, str]


@define(eq=False)
class CaConnection:
    """Asks one CA, one thing at a time; :meth:`interrupt` may be called from any thread.

    Whatever goes wrong is a :class:`PkiError`: :class:`CaRefused` if it said no itself, :class:`CaUnreachable`
    if there was no answer.
    """

    address: CaAddress
    trust_domain: TrustDomain
    timeout: float
    user: CaUser = field(factory=CaUser)
    pin: RootPin | None = None
    """Until its root was met."""
    bundles: BundleSet = field(factory=BundleSet)
    """What it must lead to."""
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone. Raises :class:`NoHybridGroup` where Python cannot insist."""
    demand: "SctDemand | None" = None
    """Of how many logs its certificate must have receipts: whoever has stolen an issuing key can mint its name too."""
    revocations: RevocationSet = field(factory=RevocationSet, init=False)
    _shown: X509Svid | None = field(default=None, init=False)
    _holder: _CaHolder = field(init=False)
    _context: MeshContext = field(init=False)
    _kept: "_Connection | None" = field(default=None, init=False)
    """For the next question that may take long."""
    _live: "_Connection | None" = field(default=None, init=False)
    _is_closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._renew()

    def renew_after_fork(self) -> None:
        """Belong to a process of its own: nothing of the parent's connections or locks is used."""
        # They are the parent's too: closed here, without a word on the wire.
        for connection in (self._kept, self._live):
            if connection is not None and connection.sock is not None:
                with suppress(OSError):
                    connection.sock.close()
        self._kept = self._live = None
        self._renew()

    def _renew(self) -> None:
        self._holder = _CaHolder(self.trust_domain)
        ca = SpiffePattern.parse(str(self.trust_domain.member("mesh", "ca")))
        self._context = MeshContext(self._holder, [ca], serves=False, require_pq=self.requires_pq)
        self._use()

    def _use(self) -> None:
        trust = Trust(bundles=self.bundles, revocations=self.revocations, demand=self.demand)
        self._holder.now = Moment(self._shown, trust, self.pin)

    @property
    def keeps_identity(self) -> bool:
        """Whether who we are is proven by a certificate, and not by the kernel."""
        return self.address.scheme == "https"

    def present(self, svid: X509Svid | None) -> None:
        """Prove ourselves by ``svid`` from the next request on."""
        if svid is not self._shown:
            self.hang_up()
            self._shown = svid
            self._use()

    def believe(self, trust: Trust) -> None:
        """Have the CA lead to one of these roots from now on, by nothing that is revoked, with what is demanded."""
        if self.pin is None and trust.bundles.get(self.trust_domain):
            held = self.bundles, self.revocations, self.demand
            if (trust.bundles, trust.revocations, trust.demand) == held:
                return
            self.bundles, self.revocations, self.demand = (
                trust.bundles,
                trust.revocations,
                trust.demand,
            )
            self._use()
            self._holder.review()

    def recall(self, trust: Trust, pin: RootPin | None) -> None:
        """What an earlier life has come to believe, before anything is asked; and the pin, where it still counts."""
        self.bundles, self.revocations, self.pin = trust.bundles, trust.revocations, pin
        self._use()

    def hang_up(self) -> None:
        """Keep no connection for another question."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def interrupt(self) -> None:
        """End what is being asked, from another thread, and ask nothing any more."""
        self._is_closed = True
        for connection in (self._live, self._kept):
            sock = None if connection is None else connection.sock
            if sock is not None:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def send(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None = None,
        more: Mapping[str, str] | None = None,
        *,
        wait: int = 0,
    ) -> bytes:
        """The body of the answer, which may take ``wait`` seconds longer than usual; its connection is kept then."""
        headers = {"accept": "application/json", **(more or {})}
        data = None
        if body is not None:
            data, headers["content-type"] = msgspec.json.encode(body), "application/json"
        asked = _Asked(method, path, data, headers)
        seconds = self.timeout + wait
        kept = None
        if wait:
            kept, self._kept = self._kept, None
        try:
            if kept is not None:
                try:
                    return self._exchange(kept, asked, seconds, keep=True)
                except (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError):
                    kept.close()  # it may have been closed for being idle: once more
            fresh = self._connection()
            return self._exchange(fresh, asked, seconds, keep=bool(wait))
        except (OSError, http.client.HTTPException) as error:
            raise self._as_error(error) from None

    def _exchange(
        self,
        connection: "_Connection",
        asked: "_Asked",
        seconds: float,
        *,
        keep: bool,
    ) -> bytes:
        deadline = time.monotonic() + seconds
        self._live = connection
        is_kept = False
        try:
            self._unless_closed()
            if connection.sock is not None:
                connection.sock.settimeout(seconds)
            else:
                connection.timeout = seconds
            headers = {**asked.headers, **({} if keep else {"connection": "close"})}
            connection.request(asked.method, asked.path, asked.data, headers)
            response = connection.getresponse()
            content = _read(response, deadline, self.address)
            if response.status >= 400:
                raise CaRefused(response.status, told_problems(response.status, content))
            if keep and not response.will_close and not self._is_closed:
                self._kept, is_kept = connection, True
            return content
        finally:
            self._live = None
            if not is_kept:
                connection.close()

    def _unless_closed(self) -> None:
        if self._is_closed:
            raise CaUnreachable(f"the CA at {self.address} is not asked any more")

    def _connection(self) -> "_Connection":
        if self.pin is not None:
            self._meet_root(self.pin)
        return _Connection(self.address, self.timeout, self._opened, self._unless_closed)

    def _opened(self, seconds: float) -> socket.socket:
        """A connection to whoever proves to be the CA."""
        address = self.address
        if address.scheme == "unix":
            return self._opened_here(Path(address.path), seconds)
        plain = socket.create_connection((address.host, address.port), min(seconds, self.timeout))
        try:
            plain.settimeout(seconds)
            if address.scheme == "http":
                return plain
            return self._context.wrap_socket(plain, server_hostname=server_name(address.host))
        except BaseException:
            plain.close()
            raise

    def _opened_here(self, path: Path, seconds: float) -> socket.socket:
        may_be = self.user.at(path.parent)
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            local.settimeout(seconds)
            local.connect(str(path))
            uid = peer_uid(local)
            if uid not in may_be:
                raise ForeignCa(
                    f"what answers at {path} runs as user {uid}, who is not known to be the CA's: name its user with "
                    "ca_user"
                )
        except BaseException:
            local.close()
            raise
        return local

    def _meet_root(self, pin: RootPin) -> None:
        """Learn the root of that fingerprint from a handshake in which nothing is said but that.

        From then on OpenSSL holds it too: nothing is told to anybody whom only our own judgement has let in.
        """
        with self._opened(self.timeout):
            self.bundles = self._context.believed.bundles
        if not self.bundles.get(self.trust_domain):
            raise AssertionError("a root was met and is not believed")
        self.pin = None
        self._use()

    def _as_error(self, error: Exception) -> PkiError:
        where = f"the CA at {self.address}"
        start = "start it (twistd -n mesh-ca) there, or check ca_url"
        if isinstance(error, PeerRefused):
            return about_its_root(
                Refused(
                    evolve(problem, detail=f"{where}: {problem.detail}")
                    for problem in error.problems
                )
            )
        if isinstance(error, TimeoutError):
            return CaUnreachable(f"{where} did not answer within {self.timeout:g} s: {start}")
        if isinstance(error, socket.gaierror):
            return CaUnreachable(f"{where}: the name cannot be looked up: check how it is spelt")
        if isinstance(error, ssl.SSLError):
            said = printable(error.reason or error.strerror or "it failed", 200)
            return CaUnreachable(f"{where}: the TLS handshake failed ({said}): look at its log")
        if isinstance(error, OSError):
            return CaUnreachable(f"{where} cannot be reached ({error.strerror or error}): {start}")
        return CaUnreachable(f"{where} gave no whole answer ({printable(str(error), 100)})")


class _Connection(http.client.HTTPConnection):
    """One to a CA, wherever that is."""

    def __init__(
        self,
        address: CaAddress,
        timeout: float,
        opened: Callable[[float], socket.socket],
        refuse_late: Callable[[], None],
    ) -> None:
        super().__init__(address.host or "localhost", address.port or 80, timeout=timeout)
        self._opened = opened
        self._refuse_late = refuse_late

    def connect(self) -> None:
        """As the address wants it."""
        self.sock = self._opened(self.timeout or 0.0)
        self._refuse_late()


def _read(response: http.client.HTTPResponse, deadline: float, address: CaAddress) -> bytes:
    """All of an answer, which has a bound in size and time."""
    content = bytearray()
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > _MAX_ANSWER:
            raise CaUnreachable(f"the CA at {address} answers more than {_MAX_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(content)
