"""A client of a signer: asks what docs/SIGNER.md describes, over connections that are kept for the next question."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, printable
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.api.local_ca import LocalCaEndpoint
from twisted_mesh.http.kept_connection import Answered, KeptConnection
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.tasks import within
from twisted_mesh.signer.address import SignerAddress
from twisted_mesh.signer.messages import (
    KEYS_PATH,
    SIGN_PATH,
    WHEREABOUTS_PATH,
    Key,
    KeyList,
    KeyPurpose,
    KeyWhereabouts,
    NewKey,
    Refusal,
    Signature,
    SignRequest,
    WhereaboutsRequest,
)
from twisted_mesh.tls.alerts import PeerRefused, RefusedByPeer, alert_of, as_error
from twisted_mesh.tls.no_group import offered_in_vain
from twisted_mesh.tls.pinned_client import PinnedEndpoint, PinnedTls, PinnedVisit

T = TypeVar("T")

#: Seconds for one signature, connecting and waiting for a free connection included: those who ask the CA wait for ten,
#: and are to hear why.
SIGNING_TIMEOUT = 8.0
#: Seconds for a key to be made: RSA-4096 on a token takes its time.
MAKING_TIMEOUT = 60.0
#: Certificates that are under way at once; the others wait, within the same time. CRLs and all else have places of
#: their own: however many certificates wait, they do not.
MOST_AT_ONCE = 8
_MOST_OTHERS = 4
#: The tag of what a TBSCertificate begins with (RFC 5280 section 4.1.2.1), and nothing else that is signed.
_VERSION = b"\xa0"
#: Bytes of an answer: a list of keys is the longest.
_MAX_ANSWER = 1024 * 1024
_AT_SOCKET = CaUser(
    what="the signer", elsewhere="another signer", option="user= in the signer's URI"
)
_START = "start it (twistd -n mesh-signer) there, or check what --issuing-key, --root-key and --key-store say"


class SignerRefused(PkiError):
    """The signer has answered no: :attr:`status` is the HTTP status, :attr:`told` what it said."""

    code = Code.KEY_STORE_REFUSED

    def __init__(self, status: int, told: Refusal) -> None:
        self.status, self.told = status, told
        detail, rule = printable(told.detail, 1000), printable(told.rule, 200)
        super().__init__(f"{detail} (rule {rule})" if rule else detail)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The one that it gave."""
        told = self.told
        words = (printable(text, 1000) for text in (told.detail, told.remedy, told.rule))
        return (Problem(Code.parse(told.code) or self.code, *words),)

    @property
    def is_for_now(self) -> bool:
        """Whether the same may be signed later: it is busy, or something behind it is away."""
        return self.status == 429 or self.status >= 500


@define(eq=False, repr=False)
class SignerClient:
    """Asks one signer. Whatever goes wrong is a :class:`PkiError`: :class:`SignerRefused` if it said no itself.

    A question that its connection was lost on is asked once more, except for a new key: to sign the same bytes twice
    does no harm.
    """

    reactor: Any
    """An ``IReactor``."""
    address: SignerAddress
    tls: PinnedTls | None = None
    """For ``https``."""
    timeout: float = SIGNING_TIMEOUT
    user: CaUser = field(init=False)
    _free: list[KeptConnection] = field(factory=list, init=False)
    """Kept for the next question, the last one used at the end."""
    _places: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(MOST_AT_ONCE), init=False)
    """For certificates."""
    _others: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(_MOST_OTHERS), init=False)

    def __attrs_post_init__(self) -> None:
        self.user = _AT_SOCKET.of(self.address.user) if self.address.user else _AT_SOCKET

    async def keys(self, seconds: float | None = None) -> Sequence[Key]:
        """Those that it holds; ``seconds`` is how long that may take, where it is another time than all else has."""
        return (await self._ask("GET", KEYS_PATH, None, KeyList, seconds)).keys

    async def make(self, purpose: KeyPurpose, algorithm: str, label: str) -> Key:
        """A new key, which stays there."""
        asked = NewKey(purpose, algorithm, label)
        return await self._ask("POST", KEYS_PATH, asked, Key, MAKING_TIMEOUT, is_repeatable=False)

    async def sign(self, name: str, data: bytes) -> bytes:
        """A signature by the key of that name over ``data``, whole: the signer reads what it signs."""
        places = self._places if _is_certificate(data) else self._others
        asked = SignRequest(name, data)
        return (await self._ask("POST", SIGN_PATH, asked, Signature, places=places)).signature

    async def whereabouts(self, name: str) -> KeyWhereabouts:
        """Where the key of that name lies behind the signer."""
        return await self._ask("POST", WHEREABOUTS_PATH, WhereaboutsRequest(name), KeyWhereabouts)

    def hang_up(self) -> None:
        """Keep no connection. Questions that are under way go on."""
        free, self._free = self._free, []
        for connection in free:
            connection.close()

    async def _ask(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | None,
        shape: type[T],
        seconds: float | None = None,
        *,
        is_repeatable: bool = True,
        places: DeferredSemaphore | None = None,
    ) -> T:
        request = self._request(method, path, body)
        attempt = _Attempt(
            self, self.timeout if seconds is None else seconds, places or self._others
        )
        try:
            answered = await within(
                self.reactor, attempt.seconds, self._exchange(request, attempt, is_repeatable)
            )
        except Exception as error:
            raise attempt.explained(error) from None
        if answered.status >= 400:
            raise SignerRefused(answered.status, _told(answered))
        try:
            return msgspec.json.decode(answered.body, type=shape)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
            raise Malformed(
                f"what answers at {self.address.where} is no signer: check the address"
            ) from None

    async def _exchange(self, request: bytes, attempt: "_Attempt", is_repeatable: bool) -> Answered:
        await attempt.places.acquire()
        try:
            if is_repeatable:
                with suppress(ConnectionDone, ConnectionLost):
                    return await self._on(await self._connection(attempt), request)
                # The others were made to the same process, which is gone.
                self.hang_up()
            return await self._on(await attempt.connect(), request)
        finally:
            attempt.places.release()

    async def _on(self, connection: KeptConnection, request: bytes) -> Answered:
        answered = await connection.ask(request)
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

    def _request(self, method: str, path: str, body: msgspec.Struct | None) -> bytes:
        host = self.address.host or "localhost"
        host = f"[{host}]" if ":" in host else host
        port = f":{self.address.port}" if self.address.port else ""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}{port}"]
        data = b""
        if body is not None:
            data = msgspec.json.encode(body)
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        return "\r\n".join((*lines, "", "")).encode("ascii") + data


@define(eq=False, repr=False)
class _Attempt:
    """One question, and the connections that it is asked on."""

    client: SignerClient
    seconds: float
    places: DeferredSemaphore
    """One of which it takes while it is under way."""
    reach: Reach = field(init=False)
    visit: PinnedVisit | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.reach = self._new_reach()

    def _new_reach(self) -> Reach:
        address = self.client.address
        return Reach(
            address.where,
            address.host,
            address.path,
            "signer",
            _START,
            seconds=self.seconds,
            otherwise="run both as one user",
        )

    async def connect(self) -> KeptConnection:
        """A new connection."""
        self.reach = self._new_reach()
        factory = Factory.forProtocol(lambda: KeptConnection(self.reach, _MAX_ANSWER))
        factory.noisy = False
        connecting: Deferred[Any] = self._endpoint().connect(factory)
        return await connecting  # type: ignore[no-any-return]

    def _endpoint(self) -> IStreamClientEndpoint:
        client, address = self.client, self.client.address
        if address.path:
            local = LocalCaEndpoint(client.reactor, Path(address.path), client.user, self.seconds)
            return self.reach.watch(local)
        if client.tls is None:
            raise AssertionError("TLS without a key of ours")
        self.visit = PinnedVisit(client.tls)
        tcp = self.reach.watch(
            HostEndpoint(client.reactor, address.host, address.port, self.seconds)
        )
        return PinnedEndpoint(tcp, self.visit, client.reactor)

    def explained(self, error: Exception) -> PkiError:
        """What went wrong, as one of ours."""
        if isinstance(error, PkiError):
            return error
        if self.visit is not None and self.visit.problem is not None:
            return PeerRefused((self.visit.problem,))
        told = as_error(error, self.reach)
        if self.client.tls is not None and self.client.tls.requires_pq:
            in_vain = offered_in_vain(told)
            if in_vain is not told:
                return in_vain
        if self.client.tls is not None and alert_of(error) is not None:
            (problem,) = told.problems
            return RefusedByPeer(
                evolve(
                    problem,
                    detail=f"the signer at {self.reach.where} does not take our key: {problem.detail}",
                    remedy=f"tell it of this CA's key: mesh-signer --client-pin {self.client.tls.own_pin}",
                )
            )
        return told


def _told(answered: Answered) -> Refusal:
    with suppress(msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return msgspec.json.decode(answered.body, type=Refusal)
    return Refusal("", f"the signer answered {answered.status}, and did not say why")


def _is_certificate(data: bytes) -> bool:
    """Whether it begins as a TBSCertificate; the signer looks more closely."""
    length = data[1] if len(data) > 1 else 0
    begins = 2 + (length & 0x7F if length & 0x80 else 0)
    return data[begins : begins + 1] == _VERSION
