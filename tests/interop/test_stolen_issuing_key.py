"""A stolen issuing key, used past the logs, is believed by no kind of endpoint; what is logged is, by the same one."""

import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.keys import MemoryKey
from pki.spiffe import SpiffeId
from pki.svid.x509svid import X509Svid
from tests.authorities import key
from tests.interop import forging
from tests.interop.forging import API_SERVER, HOUR, PAYMENT, forge, present, server_names
from tests.interop.house import HEALTHY, House, Identity
from tests.interop.wires import impostor, listening
from tests.running import PATIENCE, until
from twisted_mesh import stdlib
from twisted_mesh.stdlib import PeerRefused
from twisted_mesh.testing import MemoryLog, list_of, with_receipts

CA_ID = "spiffe://mesh.local/mesh/ca"
LOGS = MemoryLog("one"), MemoryLog("two")
THIEVES_OWN = MemoryLog("one"), MemoryLog("two")
REFUSED = "no-sct: receipts \\(SCTs\\) of 2 logs"


@frozen
class Minter:
    """Whoever has the key of the running mesh's issuing CA, and may or may not reach the logs."""

    issuing: Authority
    home: Path

    def identity(self, spiffe_id: str, logs: Sequence[MemoryLog]) -> Identity:
        directory = self.home / f"minted-{len(list(self.home.glob('minted-*')))}"
        now, own = present(), key("of whoever is minted")
        leaf = forge(
            self.issuing,
            subject_key=own,
            uris=[spiffe_id],
            start=now - HOUR / 60,
            end=now + HOUR,
            replace=server_names(spiffe_id),
        )
        svid = X509Svid(leaf, self.issuing.intermediates, own, SpiffeId.parse(spiffe_id))
        scts = [log.receipt(leaf, self.issuing.certificate, now) for log in logs]
        return forging.write(directory, with_receipts(svid, self.issuing, scts).chain, own)


#: Whose receipts a certificate has that is past the logs of the mesh.
STOLEN = {"without receipts": (), "with receipts of logs of the thief's own": THIEVES_OWN}


@pytest.fixture(
    params=[
        "without receipts",
        pytest.param("with receipts of logs of the thief's own", marks=pytest.mark.interop),
    ]
)
def thieves(request: pytest.FixtureRequest) -> Sequence[MemoryLog]:
    return STOLEN[request.param]


@pytest.fixture
def minter(issuing: Authority, tmp_path: Path) -> Minter:
    assert isinstance(issuing.key, MemoryKey)
    return Minter(issuing, tmp_path)


@pytest.fixture
def demand(tmp_path: Path) -> tuple[str, ...]:
    """The options of an endpoint that believes nobody without receipts of both logs."""
    file = tmp_path / "logs.json"
    file.write_bytes(list_of(LOGS, present()).to_bytes())
    return "--require-sct", "2", "--ct-logs", str(file)


def answer(body: bytes = b'{"status":"healthy"}') -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def calls(house: House, port: int, who: Identity) -> bool:
    """Whether a plain program with these files is served there."""
    done = house.curl(house.status_url(port), *who.for_curl)
    return done.returncode == 0 and HEALTHY in done.stdout


def test_a_server_refuses_it(
    shared: House, minter: Minter, demand: tuple[str, ...], thieves: Sequence[MemoryLog]
) -> None:
    with shared.serving(*demand, "--spiffe-id", API_SERVER) as (server, port):
        assert not calls(shared, port, minter.identity(PAYMENT, thieves))
        server.wait_for(f"refused: {REFUSED}")
        assert calls(shared, port, minter.identity(PAYMENT, LOGS))
        assert calls(shared, shared.port, minter.identity(PAYMENT, thieves)), "it is good otherwise"


def test_a_proxy_refuses_it_at_both_of_its_ends(
    shared: House, minter: Minter, demand: tuple[str, ...], thieves: Sequence[MemoryLog]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        options = ("--allow-all", *demand)
        serving, port = shared.start_proxy(
            "server", f"127.0.0.1:{target.getsockname()[1]}", *options
        )
        root = shared.root
        assert not is_carried(port, root, minter.identity(PAYMENT, thieves), target)
        serving.wait_for(f"refused: {REFUSED}")
        assert is_carried(port, root, minter.identity(PAYMENT, LOGS), target)
        assert serving.stop() == 0
    for logs in (thieves, LOGS):
        with listening(impostor(minter.identity(API_SERVER, logs), answer())) as fake:
            calling, port = shared.start_proxy(
                "client", f"localhost:{fake.port}", "--verify", API_SERVER, *demand
            )
            said = plainly(port)
            if logs is LOGS:
                assert b"healthy" in said
            else:
                calling.wait_for(REFUSED)
                assert (said, bytes(fake.heard)) == (b"", b"")
            assert calling.stop() == 0


def is_carried(port: int, root: Path, who: Identity, target: socket.socket) -> bool:
    context = ssl.create_default_context(cafile=str(root))
    context.load_cert_chain(who.cert, who.key)
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    try:
        with context.wrap_socket(plain, server_hostname="localhost") as wire:
            wire.sendall(b"hello")
            target.settimeout(0.5)
            carried, _ = target.accept()
            with carried:
                carried.settimeout(PATIENCE)
                return carried.recv(5) == b"hello"
    except OSError:
        return False


def plainly(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
        try:
            wire.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return wire.recv(10_000)
        except OSError:
            return b""


def test_a_client_refuses_it(
    shared: House, minter: Minter, demand: tuple[str, ...], thieves: Sequence[MemoryLog]
) -> None:
    with listening(impostor(minter.identity(API_SERVER, thieves), answer())) as fake:
        done = shared.client("--server", fake.url, *demand)
        assert (done.returncode, "no-sct: receipts" in done.stdout + done.stderr) == (1, True)
        assert fake.heard == b""
    with listening(impostor(minter.identity(API_SERVER, LOGS), answer())) as fake:
        assert shared.client("--server", fake.url, *demand).returncode == 0


#: Who asks a CA at https://, and would show it a token.
JOINING: dict[str, Callable[[House, Path], tuple[str, ...]]] = {
    "mesh-server": lambda house, home: ("mesh-server", "--listen", "127.0.0.1:0"),
    "mesh-proxy": lambda house, home: (
        *("mesh-proxy", "--mode", "server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:9"),
        "--allow-all",
    ),
    "mesh-agent": lambda house, home: (
        *("mesh-agent", "--write", str(home / "files")),
        *("--spiffe-id", "spiffe://mesh.local/service/web"),
    ),
    "mesh-server of two workers": lambda house, home: (
        *("mesh-server", "--listen", "127.0.0.1:0", "--workers", "2"),
    ),
}


@pytest.mark.parametrize(
    "program",
    [
        "mesh-agent",
        *(
            pytest.param(name, marks=pytest.mark.interop)
            for name in JOINING
            if name != "mesh-agent"
        ),
    ],
)
def test_a_ca_past_the_logs_is_told_nothing_by_whoever_joins(
    shared: House, minter: Minter, demand: tuple[str, ...], program: str, tmp_path: Path
) -> None:
    stolen, logged = minter.identity(CA_ID, ()), minter.identity(CA_ID, LOGS)
    words = JOINING[program](shared, tmp_path)
    for who in (stolen, logged):
        with listening(impostor(who)) as fake:
            where = ("--ca-url", fake.url, "--ca-file", str(shared.root))
            state = ("--state-dir", str(tmp_path / f"state-{who.directory.name}"))
            started = shared.twistd(*words, *where, *state, *demand)
            if who is stolen:
                started.wait_for(REFUSED)
                assert fake.heard == b"", "neither a CSR nor a request line"
            else:
                until(lambda fake=fake: bool(fake.heard), lambda s=started: s.text)
                assert "no-sct" not in started.text
            started.stop()


def test_a_ca_past_the_logs_is_told_nothing_by_a_client_or_a_program(
    shared: House, minter: Minter, demand: tuple[str, ...], tmp_path: Path
) -> None:
    with listening(impostor(minter.identity(CA_ID, ()))) as fake:
        where = ("--ca-url", fake.url, "--ca-file", str(shared.root))
        state = tmp_path / "state"
        done = shared.client(*where, *demand, "--state-dir", str(state), "--timeout", "3s")
        assert (done.returncode, "no-sct" in done.stdout + done.stderr) == (1, True)
        with pytest.raises(PkiError, match=r"no-sct|receipts"):
            stdlib.join(
                PAYMENT,
                ca_url=fake.url,
                ca_file=shared.root,
                state_dir=state,
                require_sct=2,
                ct_logs=demand[-1],
                timeout=0.1,
            )
        assert fake.callers >= 2
        assert fake.heard == b"", "neither a CSR nor a request line"


@contextmanager
def joined(house: House, spiffe_id: str, **more: object) -> Iterator[stdlib.JoinedIdentity]:
    with stdlib.join(spiffe_id, state_dir=house.state, **more) as identity:  # type: ignore[arg-type]
        yield identity


def test_a_program_on_the_standard_library_refuses_it_at_both_ends(
    shared: House, minter: Minter, demand: tuple[str, ...], thieves: Sequence[MemoryLog]
) -> None:
    with joined(shared, PAYMENT, require_sct=2, ct_logs=demand[-1]) as identity:
        client = identity.client_context(API_SERVER)
        for logs in (thieves, LOGS):
            with listening(impostor(minter.identity(API_SERVER, logs), answer())) as fake:
                plain = socket.create_connection(("127.0.0.1", fake.port), PATIENCE)
                if logs is thieves:
                    with pytest.raises(PeerRefused, match=REFUSED):
                        client.wrap_socket(plain, server_hostname="localhost")
                    plain.close()
                    continue
                with client.wrap_socket(plain, server_hostname="localhost") as wire:
                    wire.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert b"healthy" in wire.recv(10_000)
        server = identity.server_context("spiffe://mesh.local/**")
        assert not is_served(server, shared.root, minter.identity(API_SERVER, thieves))
        assert is_served(server, shared.root, minter.identity(API_SERVER, LOGS))
        child = os.fork()
        if child == 0:  # an inherited process demands the same
            refused = not is_served(server, shared.root, minter.identity(API_SERVER, thieves))
            served = is_served(server, shared.root, minter.identity(API_SERVER, LOGS))
            os._exit(0 if refused and served else 1)
        assert os.waitpid(child, 0)[1] == 0
        asked = shared.ask("socket", "/api/v1/connections").json
        assert any(one["require_sct"]["required"] == 2 for one in asked.get("require_sct", []))


def is_served(context: ssl.SSLContext, root: Path, who: Identity) -> bool:
    """Whether a caller with these files gets through a handshake with a server of that context."""
    caller = ssl.create_default_context(cafile=str(root))
    caller.check_hostname = False
    caller.load_cert_chain(who.cert, who.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = caller.wrap_bio(to_client, to_server, server_hostname="localhost")
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


def test_mesh_strings_refuse_it(
    shared: House, minter: Minter, demand: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "hello.txt").write_text("hello over the mesh")
    said = f"mesh:0:interface=127.0.0.1:require-sct=2:ct-logs={demand[-1]}"
    web = shared.twistd("web", "--listen", said, "--path", str(tmp_path))
    port = int(web.wait_for(r"Site \(TLS\) starting on (\d+)")[1])
    url = f"https://localhost:{port}/hello.txt"
    assert shared.curl(url, *minter.identity(PAYMENT, ()).for_curl).returncode != 0
    web.wait_for(REFUSED)
    assert "hello" in shared.curl(url, *minter.identity(PAYMENT, LOGS).for_curl).stdout
    until(lambda: told(shared) >= {2}, lambda: web.text)
    assert web.stop() in (0, -15)


def told(house: House) -> set[int]:
    asked = house.ask("socket", "/api/v1/connections").json
    return {one["require_sct"]["required"] for one in asked.get("require_sct", [])}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.interop)])
def test_the_list_of_logs_moves_at_sighup_and_a_bad_one_changes_nothing(
    shared: House, minter: Minter, demand: tuple[str, ...], workers: int
) -> None:
    file = Path(demand[-1])
    good = minter.identity(PAYMENT, LOGS)
    options = ("--spiffe-id", API_SERVER, "--workers", str(workers))
    with shared.serving(*demand, *options) as (server, port):
        assert calls(shared, port, good)
        for bad in (b"{}", list_of(LOGS[:1], present()).to_bytes(), b""):
            file.write_bytes(bad)
            server.process.send_signal(signal.SIGHUP)
            before = server.text.count("is not taken up")
            server.wait_for("ERROR: SIGHUP: .*is not taken up", count=before + 1)
            assert calls(shared, port, good)
        others = MemoryLog("three"), MemoryLog("four")
        file.write_bytes(list_of(others, present()).to_bytes())
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("was read again: .*new: ", count=workers)
        assert not calls(shared, port, good)
        assert calls(shared, port, minter.identity(PAYMENT, others))


@pytest.mark.parametrize("spoiled", [b"{}", None])
def test_a_list_that_cannot_be_used_is_no_start(
    shared: House, demand: tuple[str, ...], spoiled: bytes | None
) -> None:
    file = Path(demand[-1])
    file.unlink()
    if spoiled is not None:
        file.write_bytes(spoiled)
    server = shared.twistd("mesh-server", "--listen", "127.0.0.1:0", *demand)
    assert server.wait() == 1
    assert f"--ct-logs {file}" in server.text
