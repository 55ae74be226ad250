"""Places that cannot be reached, or where something else is spoken: what a client of ours says of them."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.first_lines.row import FirstLine
from tests.running import BIN, free_port, mesh, run
from tests.tools import require_tool

#: Whatever root it names: no row here comes so far.
_PIN = ("--ca-fingerprint", "sha256:" + "ab" * 32)
NEVER_START = r"start it"


def ctl(directory: Path, *options: str) -> str:
    """The first words of mesh-ctl, which asks the CA there."""
    env = {"MESH_STATE_DIR": str(directory / "state"), "NO_COLOR": "1"}
    done = run(BIN / "mesh-ctl", "ca", "show", *options, cwd=directory, env=env)
    assert done.returncode in (2, 3), done
    return done.stderr


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where every caller is answered by ``answer``, and then hung up on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with closing(caller):
                    answer(caller)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def said(words: bytes) -> Callable[[socket.socket], None]:
    def answer(caller: socket.socket) -> None:
        caller.recv(4096)
        caller.sendall(words)

    return answer


def hang_up(caller: socket.socket) -> None:
    caller.recv(4096)


def stay_silent(caller: socket.socket) -> None:
    while caller.recv(4096):
        pass


def speak_tls(caller: socket.socket) -> None:
    caller.recv(4096)
    caller.sendall(b"\x15\x03\x03\x00\x02\x02\x46")  # the alert protocol_version


def asked(answer: Callable[[socket.socket], None], scheme: str = "https") -> Callable[[Path], str]:
    def say(directory: Path) -> str:
        with answering(answer) as port:
            pin = _PIN if scheme == "https" else ()
            return ctl(
                directory, "--ca-url", f"{scheme}://127.0.0.1:{port}", "--timeout", "1s", *pin
            )

    return say


def nobody_listens(directory: Path) -> str:
    return ctl(directory, "--ca-url", f"https://127.0.0.1:{free_port()}", *_PIN)


def port_left_out(directory: Path) -> str:
    return ctl(directory, "--ca-url", "https://127.0.0.1", *_PIN)


def unknown_name(directory: Path) -> str:
    return ctl(directory, "--ca-url", "https://no-such-host.invalid:8443", *_PIN)


def no_state(directory: Path) -> str:
    return ctl(directory)


def no_socket(directory: Path) -> str:
    (directory / "state" / "ca").mkdir(parents=True)
    return ctl(directory)


def left_behind(directory: Path) -> str:
    (directory / "state" / "ca").mkdir(parents=True)
    with closing(socket.socket(socket.AF_UNIX)) as old:
        old.bind(str(directory / "state" / "ca" / "ca.sock"))
    return ctl(directory)


def a_file(directory: Path) -> str:
    (directory / "file").write_text("")
    return ctl(directory, "--ca-url", f"unix:{directory}/file")


def silent_socket(directory: Path) -> str:
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(directory / "s"))
        listening.listen()
        return ctl(directory, "--ca-url", f"unix:{directory}/s", "--timeout", "1s")


def closed_directory(directory: Path) -> str:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    # Not below pytest's own directory, which is closed to others itself.
    with TemporaryDirectory() as reachable:
        Path(reachable).chmod(0o711)
        closed = Path(reachable) / "closed"
        (closed / "state" / "ca").mkdir(parents=True)
        closed.chmod(0o700)
        become = ("--reuid=65534", "--regid=65534", "--clear-groups")
        env = {"MESH_STATE_DIR": str(closed / "state"), "NO_COLOR": "1", "HOME": "/"}
        words = (require_tool("setpriv"), *become, BIN / "mesh-ctl", "ca", "show")
        return run(*words, cwd=Path("/"), env=env).stderr


def tls_at_our_plain_port(directory: Path) -> str:
    with mesh(directory) as ours:
        ca = ours.start_ca("--insecure-http", "0")
        url = f"https://localhost:{ours.plain_port}"
        # A deadline would be ten seconds away.
        told = ctl(directory, "--ca-url", url, "--timeout", "3s", *_PIN)
        ca.wait_for(
            r"Connection from 127\.0\.0\.1:\d+ refused: it speaks TLS, and this port plain HTTP"
        )
    return told


def plain_http_at_our_tls_port(directory: Path) -> str:
    with mesh(directory) as ours:
        ca = ours.start_ca()
        told = ctl(directory, "--ca-url", f"http://localhost:{ours.ca_port}", "--timeout", "3s")
        ca.wait_for("not-tls: the peer speaks plain HTTP")
    return told


def client_of(
    url: Callable[[int], str], answer: Callable[[socket.socket], None] | None = None
) -> Callable[[Path], str]:
    """mesh-client, which has its certificate, at a server that is none."""

    def say(directory: Path) -> str:
        with mesh(directory) as ours:
            ours.start_ca()
            if answer is None:
                return ours.client("--server", url(free_port())).stderr
            with answering(answer) as port:
                return ours.client("--server", url(port), "--timeout", "2s").stderr

    return say


#: Opens so many files and becomes another program, which has them open too.
_HOLDING = """import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
for _ in range(int(sys.argv[1])):
    os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def no_descriptor_left(directory: Path) -> str:
    """All that it asks for, and most of it open already. Its Python opens some for itself, and a name takes two."""
    url = f"http://localhost:{free_port()}"
    env = {"MESH_STATE_DIR": str(directory / "state"), "NO_COLOR": "1"}
    told = ""
    for held in range(14, 21):
        words = (sys.executable, "-c", _HOLDING, str(held), BIN / "mesh-ctl", "ca", "show")
        told = run(*words, "--ca-url", url, cwd=directory, env=env).stderr
        if "nobody listens there" not in told:
            break
    return told


def crl_nobody_serves(directory: Path) -> str:
    with mesh(directory) as ours:
        ours.start_ca()
        url = f"http://127.0.0.1:{free_port()}/root.crl"
        server = ours.start_server("--crl", url, wait=False)
        return server.wait_for(r"^.*\[SERVER\].*root\.crl.*$")[0]


def asked_once(directory: Path) -> str:
    """A CA that says no is not asked again, and nobody says so."""
    with mesh(directory) as ours:
        ours.start_ca("--no-default-entry")
        done = ours.client("--server", "https://localhost:1")
    assert done.returncode == 1
    assert "trying again" not in done.stdout + done.stderr
    return done.stderr


def too_long(directory: Path) -> str:
    return ctl(directory, "--ca-url", f"unix:/tmp/{'x' * 120}")


def too_long_a_state(directory: Path) -> str:
    return ctl(directory, "--state-dir", f"/tmp/{'x' * 120}")


_SERVER = "https://127.0.0.1:{}".format
ROWS = (
    FirstLine(
        "no descriptor is left to connect with",
        "client",
        r"http://localhost:\d+: this process has no file descriptor left to connect with: \d+ are the most",
        r"raise the limit \(ulimit -n, or LimitNOFILE=\)",
        no_descriptor_left,
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "nobody listens at the server's port",
        "client",
        r"no server answers at https://127\.0\.0\.1:\d+: nobody listens there",
        r"start it, or check the address and the port",
        client_of(_SERVER),
        starts_processes=True,
    ),
    FirstLine(
        "the server speaks plain HTTP",
        "client",
        r"https://127\.0\.0\.1:\d+ speaks plain HTTP, and no TLS",
        r"name the port where it speaks TLS",
        client_of(_SERVER, said(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "the server takes connections and says nothing",
        "client",
        r"https://127\.0\.0\.1:\d+: it takes connections, and did not answer within 2 s",
        r"it runs: look in its log",
        client_of(_SERVER, stay_silent),
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "the server's scheme was left out",
        "client",
        r"'localhost:\d+' is no server",
        r"write https://HOST:PORT, here https://localhost:\d+",
        client_of("localhost:{}".format),
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "nobody serves the CRL",
        "server",
        r"no web server answers at http://127\.0\.0\.1:\d+/root\.crl: nobody listens there",
        r"start it, or check the address and the port",
        crl_nobody_serves,
        starts_processes=True,
    ),
    FirstLine(
        "a directory on the way is closed to this user",
        "client",
        r"unix:\S+/ca\.sock: this user may not go through the directory \S+/closed ",
        r"chmod o\+x \S+/closed\), or ask over TLS with a join token",
        closed_directory,
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "TLS at our own port of plain HTTP",
        "client",
        r"https://localhost:\d+ speaks plain HTTP, and no TLS",
        r"name the port where it speaks TLS",
        tls_at_our_plain_port,
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "plain HTTP at our own TLS port",
        "client",
        r"http://localhost:\d+ speaks TLS, and no plain HTTP",
        r"write https://",
        plain_http_at_our_tls_port,
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "the CA has no entry for the caller",
        "client",
        r"no-entry|forbidden|no registration entry",
        r"entry",
        asked_once,
        starts_processes=True,
        never=NEVER_START,
    ),
    FirstLine(
        "nobody listens at the port",
        "client",
        r"https://127\.0\.0\.1:\d+: nobody listens there",
        r"start it .*or check --ca-url",
        nobody_listens,
    ),
    FirstLine(
        "the port was left out",
        "client",
        r"https://127\.0\.0\.1:443: nobody listens there, on the port that is meant where none is written",
        r"write the port: https://127\.0\.0\.1:PORT",
        port_left_out,
        never=NEVER_START,
    ),
    FirstLine(
        "nobody has the name",
        "client",
        r"the name no-such-host\.invalid cannot be looked up",
        r"check how it is spelt",
        unknown_name,
        never=NEVER_START,
    ),
    FirstLine(
        "the CA takes connections and says nothing",
        "client",
        r"https://127\.0\.0\.1:\d+: it takes connections, and did not answer within 1 s",
        r"it runs: look in its log",
        asked(stay_silent),
        never=NEVER_START,
    ),
    FirstLine(
        "the CA hangs up",
        "client",
        r"https://127\.0\.0\.1:\d+ took the connection and closed it without a word",
        r"its log has the reason",
        asked(hang_up),
        never=NEVER_START,
    ),
    FirstLine(
        "plain HTTP where TLS is expected",
        "client",
        r"https://127\.0\.0\.1:\d+ speaks plain HTTP, and no TLS",
        r"name the port where it speaks TLS",
        asked(said(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        never=NEVER_START,
    ),
    FirstLine(
        "SSH where TLS is expected",
        "client",
        r"https://127\.0\.0\.1:\d+ speaks SSH, and no TLS",
        r"name the port where it speaks TLS",
        asked(said(b"SSH-2.0-OpenSSH_9.2\r\n")),
        never=NEVER_START,
    ),
    FirstLine(
        "TLS where plain HTTP is expected",
        "client",
        r"http://127\.0\.0\.1:\d+ speaks TLS, and no plain HTTP",
        r"write https://",
        asked(speak_tls, "http"),
        never=NEVER_START,
    ),
    FirstLine(
        "there is no state directory",
        "client",
        r"unix:\S+/state/ca/ca\.sock: there is no directory \S+/state",
        r"--ca-url",
        no_state,
    ),
    FirstLine(
        "no CA has been started",
        "client",
        r"unix:\S+/ca\.sock: no socket is there",
        r"start it \(twistd -n mesh-ca\) with the same state directory",
        no_socket,
    ),
    FirstLine(
        "a CA was killed",
        "client",
        r"unix:\S+/ca\.sock: nobody listens at the socket any more: it was left behind",
        r"start it",
        left_behind,
    ),
    FirstLine(
        "a file is named as the socket",
        "client",
        r"unix:\S+/file: what is there is no socket",
        r"check the path",
        a_file,
        never=NEVER_START,
    ),
    FirstLine(
        "a socket where nobody answers",
        "client",
        r"unix:\S+/s: it takes connections, and did not answer within 1 s",
        r"it runs: look in its log",
        silent_socket,
        never=NEVER_START,
        starts_processes=True,
    ),
    FirstLine(
        "a socket's path is too long",
        "client",
        r"/tmp/x+ is too long for a unix socket: 125 bytes, and 103 are the most",
        r"a shorter path, or a symbolic link",
        too_long,
        never=NEVER_START,
    ),
    FirstLine(
        "a state directory's path is too long",
        "client",
        r"/tmp/x+/ca/ca\.sock is too long for a unix socket: 136 bytes, and 103 are the most",
        r"a shorter --state-dir",
        too_long_a_state,
        never=NEVER_START,
    ),
)
