"""Two ends with contexts of the mesh, without a CA: what they show and believe is set by the test."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from attrs import define, evolve, field

from pki.codes import Code
from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import X509Svid
from tests.running import PATIENCE
from twisted_mesh.stdlib.context import MeshContext, Moment
from twisted_mesh.stdlib.guard import Guard
from twisted_mesh.stdlib.refusals import NoIdentity
from twisted_mesh.testing import MemoryCa
from twisted_mesh.trust.peer_policy import PeerPolicy
from twisted_mesh.trust.trust import Trust

CA = MemoryCa()
SHOP, TILL = "spiffe://mesh.test/service/shop", "spiffe://mesh.test/service/till"
EVERYBODY = "spiffe://mesh.test/**"
_TURNS = 20


@define(eq=False)
class Standing:
    """An identity whose moment is whatever the test makes it."""

    svid: X509Svid
    trust: Trust = field(factory=lambda: Trust(BundleSet.of(CA.bundle)))
    lock: "threading.RLock" = field(factory=threading.RLock)
    guards: list[Guard] = field(factory=list)
    refused: list[Problem] = field(factory=list)
    unpinned: list[Problem] = field(factory=list)
    is_closed: bool = False
    _now: Moment | None = None

    def moment(self) -> Moment:
        if self.is_closed:
            raise NoIdentity(Problem(Code.STATE, "the identity was closed"))
        if self._now is None or (self._now.svid, self._now.trust) != (self.svid, self.trust):
            self._now = Moment(self.svid, self.trust)
        return self._now

    def admit(self, guard: Guard) -> None:
        self.guards.append(guard)

    def tell_refused(self, problems: Sequence[Problem]) -> None:
        self.refused.extend(problems)

    def see_pins(self, pins: PinSet, verdict: Verdict, now: datetime) -> None:
        if verdict.spiffe_id is not None:
            self.unpinned.extend(pins.problems(verdict.spiffe_id, verdict.path))

    def hears(self, ca: MemoryCa) -> None:
        """What that CA has revoked."""
        self.trust = evolve(self.trust, revocations=ca.revoked)
        for guard in self.guards:
            guard.review()

    def server(self, allow: str = EVERYBODY, policy: PeerPolicy | None = None) -> MeshContext:
        return MeshContext(self, [SpiffePattern.parse(allow)], serves=True, policy=policy)

    def client(self, server_id: str = EVERYBODY, *, check_hostname: bool = True) -> MeshContext:
        pattern = SpiffePattern.parse(server_id)
        return MeshContext(self, [pattern], serves=False, check_hostname=check_hostname)


def standing(name: str = "shop", ca: MemoryCa = CA) -> Standing:
    return Standing(ca.issue(name))


def named_standing(svid: X509Svid) -> Standing:
    return Standing(svid)


@define(eq=False)
class Memory:
    """Both ends of one connection over memory, as asyncio makes them."""

    server: ssl.SSLObject
    client: ssl.SSLObject
    _pipes: tuple[ssl.MemoryBIO, ...]

    @classmethod
    def between(
        cls, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "localhost"
    ) -> "Memory":
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(
            server.wrap_bio(to_server, to_client, server_side=True),
            client.wrap_bio(to_client, to_server, server_hostname=name),
            (to_server, to_client),
        )

    def shake_hands(self) -> "Memory":
        """Until both are done. Raises what the first raises that fails."""
        left = [self.client, self.server]
        for _ in range(_TURNS):
            for end in tuple(left):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                    left.remove(end)
            if not left:
                return self
        raise AssertionError("the handshake came to no end")


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection on this machine: the server's, the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), PATIENCE)
        server, _ = listening.accept()
    server.settimeout(PATIENCE)
    with server, client:
        yield server, client


@contextmanager
def talking_client(context: ssl.SSLContext, plain: socket.socket, said: bytes) -> Iterator[None]:
    """A thread that shakes hands as a client, says something, and reads until it ends, whatever becomes of it."""

    def talk() -> None:
        with suppress(OSError):
            wrapped = context.wrap_socket(plain, server_hostname="localhost")
            with wrapped:
                wrapped.sendall(said)
                while wrapped.recv(1000):
                    pass

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            plain.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        assert not thread.is_alive()
