"""Nothing goes through a connection before its peer was judged, whatever it is asked first."""

import io
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from pki.codes import Code
from pki.svid.bundle import BundleSet
from tests.running import PATIENCE
from tests.twisted_mesh.stdlib.standing import (
    SHOP,
    TILL,
    Memory,
    Standing,
    connected,
    standing,
    talking_client,
)
from tests.twisted_mesh.tls.test_two_domains import BOTH, OURS, minted
from twisted_mesh.stdlib import MeshSSLError, PeerRefused, peer_id
from twisted_mesh.stdlib.guard import Guard, _presented
from twisted_mesh.testing import MemoryCa
from twisted_mesh.trust.trust import Trust

USES: dict[str, Callable[[ssl.SSLSocket], Any]] = {
    "recv": lambda s: s.recv(10),
    "recv_into": lambda s: s.recv_into(bytearray(10)),
    "read": lambda s: s.read(10),
    "send": lambda s: s.send(b"secret"),
    "sendall": lambda s: s.sendall(b"secret"),
    "sendfile": lambda s: s.sendfile(io.BytesIO(b"secret")),
    "write": lambda s: s.write(b"secret"),
    "makefile": lambda s: s.makefile("rb", 0).read(1),
    "do_handshake": lambda s: s.do_handshake(),
    "unwrap": lambda s: s.unwrap(),
    "getpeercert": lambda s: s.getpeercert(),
    "getpeercert-der": lambda s: s.getpeercert(True),
    "get_channel_binding": lambda s: s.get_channel_binding(),
    "peer_id": peer_id,
    "below-read": lambda s: s._sslobj.read(10),  # type: ignore[attr-defined]
    "below-write": lambda s: s._sslobj.write(b"secret"),  # type: ignore[attr-defined]
    "below-chain": lambda s: s._sslobj.get_unverified_chain(),  # type: ignore[attr-defined]
    "below-shutdown": lambda s: s._sslobj.shutdown(),  # type: ignore[attr-defined]
    "shut-then-recv": lambda s: (s.shutdown(socket.SHUT_WR), s.recv(10)),
}


@pytest.mark.parametrize("use", USES)
def test_a_judge_that_lets_nobody_in_is_asked_by_the_first_use_of_any_kind(use: str) -> None:
    nobody = standing().server("spiffe://mesh.test/service/nobody")
    with (
        connected() as (plain, other),
        talking_client(standing("till").client(), other, b"let me in"),
        nobody.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as judged,
    ):
        # What shuts its own side cannot shake hands any more, and reads nothing either.
        kinds = (PeerRefused, ssl.SSLError, OSError) if use == "shut-then-recv" else PeerRefused
        with pytest.raises(kinds):
            USES[use](judged)
        for again in ("recv", "send", "getpeercert"):
            with pytest.raises((PeerRefused, OSError)):
                USES[again](judged)


def test_a_handshake_that_nobody_asked_for_lets_a_good_peer_in() -> None:
    with (
        connected() as (plain, other),
        talking_client(standing("till").client(), other, b"hello"),
        standing()
        .server()
        .wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as judged,
    ):
        assert judged.recv(10) == b"hello"
        assert peer_id(judged) == TILL
        assert judged.getpeercert()
        assert judged.get_channel_binding("tls-unique") is not None or True
        with pytest.raises(MeshSSLError):
            judged.verify_client_post_handshake()


def test_two_threads_whose_first_words_cross_shake_hands_one_after_the_other() -> None:
    meeting = threading.Barrier(2, timeout=0.3)
    met: list[bool] = []
    refused: list[PeerRefused] = []

    class Raw:
        """As much of OpenSSL's as is asked for: with a peer that nobody lets in."""

        session_reused = False

        def do_handshake(self) -> None:
            with suppress(threading.BrokenBarrierError):
                meeting.wait()
                met.append(True)

        def version(self) -> str:
            return "TLSv1.2"

        def get_unverified_chain(self) -> tuple[()]:
            return ()

        def read(self, *_: Any) -> None:
            raise AssertionError("the peer was refused")

        write = read

    guard = Guard(Raw(), standing().server(), owner=meeting)

    def use(what: Callable[[], Any]) -> None:
        try:
            what()
        except PeerRefused as error:
            refused.append(error)

    uses = (lambda: guard.read(10), lambda: guard.write(b"secret"))
    threads = [threading.Thread(target=use, args=(what,), daemon=True) for what in uses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not met
    assert len(refused) == 2


def test_a_client_tells_nobody_anything_whom_it_refuses() -> None:
    heard: list[bytes] = []
    with connected() as (plain, other):

        def serve() -> None:
            with (
                pytest.raises(OSError),
                standing().server().wrap_socket(plain, server_side=True) as s,
            ):
                heard.append(s.recv(100))
                raise OSError

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(PeerRefused):
            standing("till").client(TILL).wrap_socket(other, server_hostname="localhost")
        thread.join(PATIENCE)
    assert heard in ([], [b""])


# Before Python 3.13 a socket whose peer has gone before it is wrapped is left to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", ["connect", "connect_ex"])
def test_a_socket_that_connects_late_is_judged_too_and_never_speaks_in_the_clear(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with plain, pytest.raises(OSError):
                standing().server().wrap_socket(plain, server_side=True).recv(10)
                raise OSError

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        late = (
            standing("till").client(TILL).wrap_socket(socket.socket(), server_hostname="localhost")
        )
        with pytest.raises(PeerRefused):
            getattr(late, way)(listening.getsockname())
        with pytest.raises(OSError):
            late.send(b"secret")
        thread.join(PATIENCE)


PLAIN: dict[str, Callable[[ssl.SSLSocket], Any]] = {
    "recv": lambda s: s.recv(10),
    "recv_into": lambda s: s.recv_into(bytearray(10)),
    "recvfrom": lambda s: s.recvfrom(10),
    "recvfrom_into": lambda s: s.recvfrom_into(bytearray(10)),
    "makefile": lambda s: s.makefile("rb", 0).read(1),
    "send": lambda s: s.send(b"secret"),
    "sendall": lambda s: s.sendall(b"secret"),
    "sendfile": lambda s: s.sendfile(io.BytesIO(b"secret")),
    "sendto": lambda s: s.sendto(b"secret", ("127.0.0.1", 9)),
}


@pytest.mark.parametrize("use", PLAIN)
def test_a_socket_that_had_no_peer_when_it_was_wrapped_is_never_a_plain_one(use: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        standing().server().wrap_socket(socket.socket(), server_side=True) as judged,
    ):
        # As on Pythons that take a peer which has gone for one that has not come yet.
        socket.socket.connect(judged, listening.getsockname())
        with listening.accept()[0] as other:
            other.sendall(b"let me in")
            judged.settimeout(PATIENCE)
            with pytest.raises(OSError, match="there is no TLS on this socket"):
                PLAIN[use](judged)
            other.settimeout(0)
            with pytest.raises(BlockingIOError):
                other.recv(10)


def test_what_both_sides_unwrap_goes_on_in_the_clear() -> None:
    with connected() as (plain, other):
        made: list[socket.socket] = []

        def unwrapped(context: ssl.SSLContext, **options: Any) -> None:
            made.append(context.wrap_socket(**options).unwrap())

        client = {"sock": other, "server_hostname": "localhost"}
        thread = threading.Thread(
            target=unwrapped, args=(standing("till").client(),), kwargs=client, daemon=True
        )
        thread.start()
        unwrapped(standing().server(), sock=plain, server_side=True)
        thread.join(PATIENCE)
        one, two = made
        with one, two:
            one.sendall(b"in the clear")
            assert two.recv(100) == b"in the clear"


def test_a_listening_socket_hands_out_the_context_of_the_moment() -> None:
    server = standing()
    first = server.svid
    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        server.server().wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        ) as listening,
    ):
        server.svid = standing().svid
        with (
            socket.create_connection(listening.getsockname()) as other,
            talking_client(standing("till").client(SHOP), other, b"hello"),
            listening.accept()[0] as accepted,
        ):
            assert accepted.recv(10) == b"hello"
            assert accepted.context is not listening.context
        with pytest.raises(MeshSSLError):
            listening.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert first is not server.svid


def test_a_reader_that_waits_hears_at_once_that_its_peer_is_revoked() -> None:
    ca = MemoryCa()
    trust = Trust(BundleSet.of(ca.bundle))
    server, client = Standing(ca.issue("shop"), trust), Standing(ca.issue("till"), trust)
    with (
        connected() as (plain, other),
        talking_client(client.client(), other, b"hello"),
        server.server().wrap_socket(plain, server_side=True) as judged,
    ):
        assert judged.recv(10) == b"hello"
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                judged.recv(10)
            except OSError as error:
                caught.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        ca.revoke(client.svid)
        server.hears(ca)
        thread.join(PATIENCE)
        assert isinstance(caught[0], PeerRefused)
        assert caught[0].codes == ("revoked",)


@pytest.mark.parametrize("public", [True, False], ids=["public", "before-3.13"])
def test_the_chain_is_had_by_the_public_way_where_there_is_one(
    public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def get_unverified_chain(self: Any) -> list[bytes]:
        asked.append(self)
        return [cert.public_bytes(2) for cert in self._sslobj.get_unverified_chain()]

    monkeypatch.delattr(ssl.SSLObject, "get_unverified_chain", raising=False)
    if public:
        monkeypatch.setattr(
            ssl.SSLObject, "get_unverified_chain", get_unverified_chain, raising=False
        )
    server, client = standing(), standing("till")
    memory = Memory.between(server.server(), client.client()).shake_hands()
    assert bool(asked) is public
    for end, svid in ((memory.server, client.svid), (memory.client, server.svid)):
        chain = _presented(end._sslobj._raw)  # type: ignore[attr-defined]
        assert [len(der) for der in chain] and len(chain) == len(svid.chain)


def test_what_is_not_of_the_mesh_has_no_peer_id() -> None:
    with connected() as (plain, _), pytest.raises(TypeError, match="no connection of the mesh"):
        peer_id(plain)
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TypeError):
        peer_id(lax.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"))


@pytest.mark.parametrize("posing", ["client", "server"])
def test_a_name_of_ours_by_a_ca_that_is_federated_with_is_nobody(posing: str) -> None:
    trust, anybody = Trust(BOTH), f"{OURS.trust_domain.id}/**"
    ours, other = Standing(OURS.issue("web"), trust), Standing(minted(), trust)
    server, client = (ours, other) if posing == "client" else (other, ours)
    with pytest.raises(ssl.SSLError):
        calling = client.client(anybody, check_hostname=False)
        shaken = Memory.between(server.server(anybody), calling).shake_hands()
        shaken.server.read(1) if posing == "client" else shaken.client.read(1)
    assert [problem.code for problem in ours.refused] == [Code.UNKNOWN_AUTHORITY]
