"""Who blocks is told the same as who waits on a reactor, word for word: of a CA, and of what answers in its place."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, frozen

from pki.errors import PkiError
from pki.spiffe import TrustDomain
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import X509Svid, certificates_pem
from tests.authorities import MESH, OTHER
from tests.twisted_mesh.tls.wires import good_svid, home
from twisted_mesh.api.blocking_client import BlockingCaClient, result_of
from twisted_mesh.identity.blocking import blocking_tls
from twisted_mesh.identity.ca_place import CaPlace
from twisted_mesh.state.generation import publish

_TIMEOUT = 0.2
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: "
_ROOT = certificates_pem([home().root.certificate])

#: What asks by a reactor, one row of its standard input after the other.
_ON_A_REACTOR = """
import json, sys
from pathlib import Path
from pki.errors import PkiError
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from twisted_mesh.cli.running import reactor, run
from twisted_mesh.identity.bootstrap import ca_client
from twisted_mesh.identity.exported import exported

async def work():
    told = []
    for row in json.load(sys.stdin):
        try:
            client = ca_client(reactor, row["url"], row["file"], Path("/nowhere"), TrustDomain.parse(row["domain"]),
                               ca_fingerprint=row["fingerprint"], ca_user=row["user"], timeout=row["timeout"])
            if row["svid"]:
                client.present(exported(Path(row["svid"]))[0], "--svid " + row["svid"])
            told.append(["", str(certificates_pem(await client.roots()), "ascii")])
        except PkiError as error:
            told.append([",".join(p.code for p in error.problems), str(error)])
    print(json.dumps(told))
    return 0

run("test", work)
"""

Behave = Callable[[socket.socket], None]


@contextmanager
def answering(behave: Behave, listening: socket.socket) -> Iterator[socket.socket]:
    """Serve one connection after the other until the end."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with closing(connection), suppress(OSError):
                connection.settimeout(10)
                behave(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with closing(listening):
        yield listening
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def says(answer: bytes) -> Behave:
    """Hear a request, and say that."""

    def behave(connection: socket.socket) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard:
            data = connection.recv(4096)
            if not data:
                return
            heard += data
        connection.sendall(answer)

    return behave


def greets(greeting: bytes) -> Behave:
    """Say that, and wait for the other side's end."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(greeting)
        while connection.recv(4096):
            pass

    return behave


def _says_at_once(greeting: bytes) -> Behave:
    return lambda connection: connection.sendall(greeting)


def is_silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def hangs_up(connection: socket.socket) -> None:
    """At once."""


def resets(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def over_tls(
    behave: Behave, directory: Path, identity: X509Svid, *, most: ssl.TLSVersion | None = None
) -> Behave:
    """The same inside TLS, as ``identity``, with the root of the test's mesh demanded of callers."""
    directory.mkdir()
    chain = directory / "chain.pem"
    chain.write_bytes(certificates_pem((*identity.chain, home().root.certificate)))
    (directory / "key.pem").write_bytes(identity.key.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if most is not None:
        context.maximum_version = most
    context.load_cert_chain(chain, directory / "key.pem")
    context.load_verify_locations(cadata=_ROOT.decode())
    context.verify_mode = ssl.CERT_OPTIONAL

    def secured(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as inside:
            behave(inside)
            with suppress(OSError):
                inside.unwrap()

    return secured


@frozen
class Row:
    """One place, and what its words must have in them."""

    url: str
    words: str
    file: str | None = None
    fingerprint: str | None = None
    svid: str | None = None
    user: str | None = None
    domain: str = str(MESH)
    timeout: float = 20.0


def asked(row: Row) -> list[str]:
    """What the one that blocks says."""
    try:
        place = CaPlace.of_administrator(
            row.url,
            row.file,
            Path("/nowhere"),
            TrustDomain.parse(row.domain),
            ca_fingerprint=row.fingerprint,
            ca_user=row.user,
            svid=Path(row.svid) if row.svid else None,
        )
        security = blocking_tls(place) if place.address.scheme == "https" else None
        client = BlockingCaClient(place.address, row.timeout, place.user, security)
        return ["", certificates_pem(result_of(client.roots())).decode()]
    except PkiError as error:
        return [",".join(problem.code for problem in error.problems), str(error)]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Row]]:
    with ExitStack() as stack:
        rows: dict[str, Row] = {}

        def local(name: str, behave: Behave | None, words: str, **more: Any) -> None:
            path = tmp_path / f"{name}.sock"
            if behave is not None:
                listening = socket.socket(socket.AF_UNIX)
                listening.bind(str(path))
                listening.listen()
                stack.enter_context(answering(behave, listening))
            rows[f"unix {name}"] = Row(f"unix:{path}", words, **more)

        def tcp(name: str, behave: Behave, words: str, scheme: str = "http", **more: Any) -> None:
            listening = stack.enter_context(
                answering(behave, socket.create_server(("127.0.0.1", 0)))
            )
            url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
            rows[f"{scheme} {name}"] = Row(url, words, **more)

        roots = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_ROOT) + _ROOT
        refusal = json.dumps({"problems": [{"code": "revoked", "detail": "no", "remedy": "yes"}]})
        forbidden = f"HTTP/1.1 403 No\r\nContent-Length: {len(refusal)}\r\n\r\n{refusal}".encode()
        local("ca", says(roots), "BEGIN CERTIFICATE")
        local("refusing", says(forbidden), "revoked: no")
        local("gone", None, "no socket is there")
        local("silent", is_silent, "did not answer within 0.2 s", timeout=_TIMEOUT)
        local("hanging-up", hangs_up, "closed it without a word")
        (tmp_path / "file.sock").touch()
        local("file", None, "what is there is no socket")
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(tmp_path / "left.sock"))
        left.close()
        local("left", None, "it was left behind")
        rows["unix nowhere"] = Row("unix:/nowhere/x/ca.sock", "there is no directory /nowhere")

        tcp("ca", says(roots), "BEGIN CERTIFICATE")
        tcp("in chunks", says(_chunked(_ROOT)), "BEGIN CERTIFICATE")
        tcp("ssh", greets(b"SSH-2.0-x\r\n"), "is not HTTP but SSH")
        tcp("tls", _says_at_once(b"\x15\x03\x03\0\x02\x02\x46"), "speaks TLS, and no plain HTTP")
        tcp("nonsense", says(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"), "is not HTTP throughout")
        tcp("endless", says(_OK + b"9" * 40 + b"\r\n\r\n"), "answers with more than")
        tcp("cut", says(_OK + b"10\r\n\r\nx"), "took the connection and closed it")
        tcp("hanging up", hangs_up, "closed it without a word")
        tcp("resetting", resets, "closed it without a word")
        tcp("silent", is_silent, "did not answer within 0.2 s", timeout=_TIMEOUT)
        tcp("no CA", says(_OK + b"2\r\n\r\n{}"), "holds no certificates")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        rows["http refused"] = Row(f"http://127.0.0.1:{port}", "nobody listens there")
        rows["https refused"] = Row(
            f"https://127.0.0.1:{port}", "nobody listens there", fingerprint=_fingerprint()
        )
        rows["https unknown name"] = Row(
            "https://nobody.invalid:1", "cannot be looked up", fingerprint=_fingerprint()
        )

        (tmp_path / "root.pem").write_bytes(_ROOT)
        (tmp_path / "other.pem").write_bytes(certificates_pem([home(OTHER).root.certificate]))
        root: dict[str, Any] = {"file": str(tmp_path / "root.pem")}
        ca, me = good_svid(None, "mesh", "ca"), good_svid()
        publish(
            tmp_path / "me",
            {
                "svid.pem": (certificates_pem(me.chain), 0o644),
                "svid_key.pem": (me.key.to_pem(), 0o600),
                "svid_bundle.pem": (_ROOT, 0o644),
            },
        )
        good = over_tls(says(roots), tmp_path / "ca", ca)
        tcp("ca", good, "BEGIN CERTIFICATE", "https", **root)
        tcp("ca by fingerprint", good, "BEGIN CERTIFICATE", "https", fingerprint=_fingerprint())
        tcp("ca as me", good, "BEGIN CERTIFICATE", "https", svid=str(tmp_path / "me"), **root)
        tcp(
            "another fingerprint",
            good,
            "wrong-fingerprint",
            "https",
            fingerprint=_fingerprint(OTHER),
        )
        tcp("another root", good, "unknown", "https", file=str(tmp_path / "other.pem"))
        posing = over_tls(says(roots), tmp_path / "posing", me)
        tcp("a workload", posing, "not-authorized", "https", **root)
        old = over_tls(says(roots), tmp_path / "old", ca, most=ssl.TLSVersion.TLSv1_2)
        tcp("tls 1.2", old, "TLS", "https", **root)
        tcp("ssh", greets(b"SSH-2.0-x\r\n"), "speaks SSH, and no TLS", "https", **root)
        tcp("hanging up", hangs_up, "closed it without a word", "https", **root)
        tcp("silent", is_silent, "did not answer within 0.2 s", "https", timeout=_TIMEOUT, **root)
        silent = over_tls(is_silent, tmp_path / "mute", ca)
        tcp("mute", silent, "did not answer within 0.2 s", "https", timeout=_TIMEOUT, **root)
        yield rows


def _chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _fingerprint(of: TrustDomain = MESH) -> str:
    return str(Fingerprint.of(home(of).root.certificate))


def test_both_say_the_same_of_every_place(places: dict[str, Row]) -> None:
    rows = [asdict(row) for row in places.values()]
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_REACTOR],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "MESH_TLS_TRANSPORT": "twisted"},
    )
    assert not done.returncode, done.stderr
    by_reactor = dict(zip(places, json.loads(done.stdout), strict=True))
    blocking = {name: asked(row) for name, row in places.items()}
    lacking = {
        name: told for name, told in blocking.items() if places[name].words not in " ".join(told)
    }
    assert not lacking
    differing = {
        name: (told, by_reactor[name])
        for name, told in blocking.items()
        if told != by_reactor[name]
    }
    assert not differing
