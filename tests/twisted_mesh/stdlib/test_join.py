"""``join``, at a real CA: an identity that comes, rotates, hears of revocations, survives forks, and ends."""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pki.errors import Malformed, PkiError
from pki.rules.errors import BadPolicy
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import load_certificates
from tests.running import CHECKOUT, PATIENCE, Mesh, mesh, until
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.stdlib import JoinedIdentity, NoIdentity, PeerRefused, join, peer_id
from twisted_mesh.stdlib.ca_connection import CaUnreachable

WEB, CALLER = "spiffe://mesh.local/service/web", "spiffe://mesh.local/service/caller"
ALL = "spiffe://mesh.local/service/*"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh(tmp_path_factory.mktemp("stdlib")) as running:
        running.start_ca("--cert-duration", "1h")
        yield running


@pytest.fixture
def joined(house: Mesh) -> Iterator[Callable[..., JoinedIdentity]]:
    with contextlib.ExitStack() as stack:

        def make(spiffe_id: str = WEB, **options: Any) -> JoinedIdentity:
            options.setdefault("state_dir", house.state)
            return stack.enter_context(join(spiffe_id, dns="localhost", **options))

        yield make


@contextlib.contextmanager
def echoing(context: ssl.SSLContext, **options: Any) -> Iterator[int]:
    """A server in a thread that says who is calling, and repeats what it hears; its port."""
    stop = threading.Event()

    def one(connected: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError), connected:
            while said := connected.recv(1000):
                connected.sendall(peer_id(connected).encode() + b" says " + said)

    def serve(listening: socket.socket) -> None:
        while True:
            plain, _ = listening.accept()
            with contextlib.suppress(OSError), plain:
                if stop.is_set():
                    return
                plain.settimeout(PATIENCE)
                connected = context.wrap_socket(plain, server_side=True, **options)
                threading.Thread(target=one, args=(connected,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        stop.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join(PATIENCE)


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def asked(port: int, context: ssl.SSLContext) -> bytes:
    with connect(port, context) as connected:
        connected.sendall(b"hello")
        return connected.recv(1000)


@pytest.mark.parametrize("shakes", [True, False], ids=["explicit", "implicit"])
def test_two_programs_join_and_talk(joined: Callable[..., JoinedIdentity], shakes: bool) -> None:
    server, client = joined(WEB), joined(CALLER)
    assert server.spiffe_id == WEB
    with echoing(server.server_context(CALLER), do_handshake_on_connect=shakes) as port:
        assert asked(port, client.client_context(WEB)) == CALLER.encode() + b" says hello"
        assert asked(port, server.client_context(WEB)) == b""


def test_a_token_joins_from_afar_and_the_next_life_needs_none(house: Mesh, tmp_path: Path) -> None:
    token = house.ctl(
        "token", "create", "--spiffe-id", WEB, "--dns", "localhost", "--format", "json"
    )
    made = json.loads(token.stdout)
    afar: dict[str, Any] = {
        "ca_url": f"https://localhost:{house.ca_port}",
        "ca_fingerprint": house.fingerprint,
        "state_dir": tmp_path,
        "dns": ["localhost"],
    }
    with join(WEB, join_token=made["token"], **afar) as first:
        assert first.svid.leaf
    with join(WEB, **afar) as second:
        assert second.svid.leaf != first._source._svid
    with pytest.raises(CaRefused):
        join(WEB, join_token=made["token"], **{**afar, "state_dir": tmp_path / "other"})


def test_a_ca_with_another_root_is_told_nothing(house: Mesh, tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="wrong-fingerprint"):
        join(
            WEB,
            ca_url=f"https://localhost:{house.ca_port}",
            ca_fingerprint="sha256:" + "00" * 32,
            join_token=None,
            state_dir=tmp_path,
        )


def test_peers_are_held_to_pins_and_the_ca_hears_of_them(
    house: Mesh, joined: Callable[..., JoinedIdentity], caplog: pytest.LogCaptureFixture
) -> None:
    root = SpkiHash.of(load_certificates(house.root.read_bytes())[0])
    wrong, right = (f"{ALL}={one},{SpkiHash(bytes(32))}" for one in (SpkiHash(b"x" * 32), root))
    enforced = {
        "peer_pin_mode": "enforce",
        "peer_pin_until": wall_clock() + timedelta(days=30),
    }
    server = joined(WEB)
    with echoing(server.server_context(CALLER)) as port:
        refusing = joined(CALLER, peer_pin=wrong, **enforced)
        with pytest.raises(PeerRefused, match="pin-mismatch"):
            asked(port, refusing.client_context(WEB))
        assert asked(port, joined(CALLER, peer_pin=right, **enforced).client_context(WEB))
        with caplog.at_level("WARNING", "twisted_mesh.stdlib"):
            reporting = joined(CALLER, peer_pin=[wrong])
            for _ in range(2):
                assert asked(port, reporting.client_context(WEB))
    assert caplog.text.count("Pins of CA keys are only reported") == 1
    assert caplog.text.count("would be refused if pins were enforced") == 1
    until(lambda: told_of(house) >= {(wrong, "enforce"), (wrong, "report"), (right, "enforce")})
    with pytest.raises(Malformed, match=r"peer_pin: .* has one pin"):
        join(CALLER, peer_pin=right.partition(",")[0], state_dir=house.state)


def told_of(house: Mesh) -> set[tuple[str, str]]:
    """The pins that the CA has been told of."""
    asking = ("curl", "-sS", "--unix-socket", house.socket, "http://localhost/api/v1/connections")
    told = json.loads(house.run(*asking).stdout)
    return {
        (rule, one["pins"]["mode"]) for one in told.get("pins", []) for rule in one["pins"]["rules"]
    }


def test_it_rotates_by_itself(joined: Callable[..., JoinedIdentity]) -> None:
    server, client = joined(WEB, ttl="2s"), joined(CALLER)
    first = server.svid
    with echoing(server.server_context(CALLER)) as port:
        context = client.client_context(WEB)
        while server.rotations < 2:
            assert asked(port, context) == CALLER.encode() + b" says hello"
    assert server.svid.leaf != first.leaf
    assert server.svid.key.public_key != first.key.public_key


def test_a_peer_that_is_revoked_loses_its_connection(
    house: Mesh, joined: Callable[..., JoinedIdentity]
) -> None:
    server, client = joined(WEB), joined("spiffe://mesh.local/service/doomed")
    with echoing(server.server_context(ALL)) as port:
        with connect(port, client.client_context(WEB)) as connected:
            connected.sendall(b"hello")
            assert connected.recv(1000)
            serial = f"{client.svid.leaf.serial_number:x}"
            done = house.ctl("cert", "revoke", "--serial", serial, "--yes")
            assert done.returncode == 0, done.stderr
            with contextlib.suppress(OSError):  # a reset is an end too
                assert connected.recv(1000) == b""
        with contextlib.suppress(OSError):
            assert asked(port, client.client_context(WEB)) == b""


def test_after_it_is_closed_nobody_shakes_hands(joined: Callable[..., JoinedIdentity]) -> None:
    server, client = joined(WEB), joined(CALLER)
    with echoing(server.server_context(CALLER)) as port:
        context = client.client_context(WEB)
        held = connect(port, context)
        with held:
            held.sendall(b"hello")
            assert held.recv(1000)
            client.close()
            client.close()
            with pytest.raises(PeerRefused, match="closed"):
                held.sendall(b"more")
        with pytest.raises(NoIdentity, match="closed"):
            connect(port, context)
        with pytest.raises(NoIdentity):
            _ = client.svid


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"server_id": "spiffe//mesh.local/x"}, "server_id"),
        ({"server_id": "spiffe://Mesh.Local/service/web"}, "server_id"),
        ({"server_id": "spiffe://mesh.local/service/web/"}, "server_id"),
        ({"server_id": []}, "server_id is empty"),
        ({"allow": ()}, "allow is empty"),
        ({"allow": ["spiffe://mesh.local/**", "web"]}, "allow"),
    ],
    ids=["scheme", "capitals", "slash", "nobody", "nobody-allowed", "second"],
)
def test_an_id_with_a_typing_error_is_refused_at_once(
    joined: Callable[..., JoinedIdentity], wrong: dict[str, Any], said: str
) -> None:
    me = joined()
    with pytest.raises(Malformed, match=said):
        me.client_context(**wrong) if "server_id" in wrong else me.server_context(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spiffe_id": "spiffe://mesh.local"},
        {"spiffe_id": "web"},
        {"ca_url": "https://localhost:8443"},
        {"ca_url": "localhost:8443"},
        {"ca_fingerprint": "sha256:" + "00" * 32},
        {"ca_url": "https://localhost:1", "ca_fingerprint": "x"},
        {"ca_url": "https://localhost:1", "ca_fingerprint": "x", "ca_file": "y"},
        {"ca_url": "https://localhost:1", "ca_file": "/nowhere"},
        {"ca_url": "https://localhost:1", "ca_file": "/nowhere", "ca_user": "root"},
        {"dns": "not a name"},
        {"ip": "300.0.0.1"},
        {"key": "rsa-1"},
        {"ttl": "soon"},
        {"join_token": "mj1_x"},
        {"rotate_at": 1.0},
        {"ca_user": "nobody here"},
    ],
    ids=lambda wrong: "-".join(wrong) + f"-{len(str(wrong))}",
)
def test_words_that_cannot_be_meant_are_refused_before_anybody_is_asked(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PkiError):
        join(**{"spiffe_id": WEB, "state_dir": tmp_path, "timeout": 0.0, **wrong})


def test_a_ca_that_is_away_is_waited_for_as_long_as_is_said(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    started = time.monotonic()
    with pytest.raises(CaUnreachable, match=r"ca\.sock cannot be reached.*mesh-ca"):
        join(WEB, state_dir=tmp_path, timeout=0.5)
    assert time.monotonic() - started < PATIENCE
    with mesh(tmp_path / "late") as late:
        ca = threading.Timer(0.3, late.start_ca)
        ca.start()
        with join(WEB, state_dir=late.state, timeout=PATIENCE) as me:
            assert me.svid
        ca.join()


def test_a_ca_that_goes_away_for_less_than_a_life_is_noticed_and_refuses_nobody(
    tmp_path: Path,
) -> None:
    with mesh(tmp_path) as away:
        ca = away.start_ca()
        me = join(WEB, state_dir=away.state, dns="localhost")
        other = join(CALLER, state_dir=away.state)
        with me, other, echoing(me.server_context(CALLER)) as port:
            context = other.client_context(WEB)
            with connect(port, context) as held:
                ca.stop()
                until(lambda: me.last_problem is not None)
                held.sendall(b"hello")
                assert held.recv(1000), "what is open stays"
            assert asked(port, context) == CALLER.encode() + b" says hello"
            away.start_ca()
            until(lambda: me.last_problem is None)
            assert asked(port, context) == CALLER.encode() + b" says hello"


def test_a_ca_that_was_made_anew_is_asked_for_another_certificate_at_once(tmp_path: Path) -> None:
    with mesh(tmp_path) as anew:
        ca = anew.start_ca("--cert-duration", "1h")
        me = join(WEB, state_dir=anew.state, dns="localhost")
        other = join(CALLER, state_dir=anew.state)
        with me, other, echoing(me.server_context(CALLER)) as port:
            context, first = other.client_context(WEB), me.bundles
            with connect(port, context) as held:
                ca.stop()
                anew.state.rename(tmp_path / "before")
                anew.start_ca("--cert-duration", "1h")

                def serves() -> bool:
                    with contextlib.suppress(OSError):
                        return asked(port, context) == CALLER.encode() + b" says hello"
                    return False

                def believes_another(joined: JoinedIdentity) -> bool:
                    with contextlib.suppress(
                        NoIdentity
                    ):  # for a moment, until it has another certificate
                        return joined.bundles != first
                    return False

                until(lambda: believes_another(me) and believes_another(other))
                until(serves)
                with pytest.raises(PeerRefused):
                    held.sendall(b"by a root that nobody believes any more")


@pytest.mark.slow
def test_a_ca_that_is_away_for_longer_than_a_life_ends_it_until_it_is_back(tmp_path: Path) -> None:
    with mesh(tmp_path) as away:
        ca = away.start_ca()
        me = join(WEB, state_dir=away.state, dns="localhost", ttl="2s")
        other = join(CALLER, state_dir=away.state)
        with me, other, echoing(me.server_context(CALLER)) as port:
            context = other.client_context(WEB)
            with connect(port, context) as held:
                held.sendall(b"hello")
                assert held.recv(1000)
                ca.stop()
                assert held.recv(1000) == b"", "nobody hears of revocations any more"
            with pytest.raises(NoIdentity, match="has ended"):
                me.server_context(CALLER).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), True)
            away.start_ca()

            def serves() -> bool:
                with contextlib.suppress(OSError):
                    return asked(port, context) == CALLER.encode() + b" says hello"
                return False

            until(serves)


async def ended(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def settled() -> None:
    """Once the other ends' tasks are done too."""
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.01)


def test_a_rotation_while_a_hundred_connections_of_asyncio_are_open_ends_none(
    joined: Callable[..., JoinedIdentity],
) -> None:
    server, client = joined(WEB, ttl="1m", rotate_at=0.02), joined(CALLER)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(peer_id(writer).encode() + b" " + line)
        await ended(writer)

    async def talk() -> None:
        listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server.server_context(ALL))
        port = listening.sockets[0].getsockname()[1]
        context = client.client_context(WEB)
        ends = await asyncio.gather(
            *(
                asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
                for _ in range(100)
            )
        )
        before = server.rotations
        while server.rotations < before + 2:
            await asyncio.sleep(0.05)
        for reader, writer in ends:
            writer.write(b"hello\n")
            assert await reader.readline() == CALLER.encode() + b" hello\n"
            await ended(writer)
        listening.close()
        await settled()

    asyncio.run(talk())


def test_a_peer_of_asyncio_that_is_revoked_is_heard_no_more(
    house: Mesh, joined: Callable[..., JoinedIdentity]
) -> None:
    server, client = joined(WEB), joined("spiffe://mesh.local/service/doomed")
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                heard.append(line)
                writer.write(line)
        await ended(writer)

    async def talk() -> None:
        listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server.server_context(ALL))
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client.client_context(WEB), server_hostname="localhost"
        )
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        serial = f"{client.svid.leaf.serial_number:x}"
        done = await asyncio.to_thread(house.ctl, "cert", "revoke", "--serial", serial, "--yes")
        assert done.returncode == 0, done.stderr
        (guard,) = (g for g in server._open() if g._spiffe_id == client.spiffe_id)
        while not guard._refusal:
            await asyncio.sleep(0.01)
        with contextlib.suppress(OSError):
            writer.write(b"more\n")
            assert await reader.readline() == b""
        await ended(writer)
        listening.close()
        await settled()

    asyncio.run(talk())
    assert heard == [b"hello\n"]


def in_child(work: Callable[[], bytes]) -> bytes:
    """What ``work`` makes of it in a process that is forked here."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(theirs, work())
        except BaseException as error:
            os.write(theirs, repr(error).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    try:
        assert select.select([ours], [], [], PATIENCE)[0], "the child says nothing"
        with open(ours, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_child_goes_on_by_itself_with_a_key_of_its_own(
    joined: Callable[..., JoinedIdentity],
) -> None:
    server, client = joined(WEB), joined(CALLER, ttl="2s")
    with echoing(server.server_context(CALLER)) as port:
        context = client.client_context(WEB)
        assert asked(port, context)
        with connect(port, context) as held:
            held.sendall(b"hello")
            assert held.recv(1000)

            def work() -> bytes:
                first = client.svid.key.public_key
                before = client.rotations
                said = asked(port, context)
                deadline = time.monotonic() + PATIENCE
                while client.rotations == before and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert client.svid.key.public_key != first
                again = asked(port, context)
                client.close()
                return said + b"; " + again

            told = CALLER.encode() + b" says hello"
            assert in_child(work) == told + b"; " + told
            held.sendall(b"the parent's connection is not cut by its child's end")
            assert held.recv(1000)
        assert asked(port, context) == told


def test_importing_it_installs_no_reactor(house: Mesh) -> None:
    program = (
        "import sys\n"
        "from twisted_mesh.stdlib import join\n"
        f"me = join({WEB!r}, state_dir={str(house.state)!r})\n"
        f"me.server_context({ALL!r}); me.client_context({WEB!r}); me.close()\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_policy_is_asked_about_peers_and_never_about_the_ca(
    joined: Callable[..., JoinedIdentity], tmp_path: Path
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        'version = 1\n[[rule]]\nname = "nobody"\neffect = "allow"\non = ["accept"]\nwhen = "false"\n'
    )
    file.chmod(0o600)
    identity = joined(policy=file)
    assert identity.svid
    assert identity.server_context(allow="spiffe://mesh.local/**")
    with pytest.raises(BadPolicy, match="could allow connect"):
        identity.client_context(server_id=WEB)
    file.write_text("version = 1\n[[rule]]\n")
    with pytest.raises(BadPolicy):
        joined(policy=file)
