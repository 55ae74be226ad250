"""``make demo``: the mesh from nothing to revocation, with real processes, in about half a minute."""

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time

from twisted_mesh.cli.demo_machine import make_machine
from twisted_mesh.cli.demo_thief import mint
from twisted_mesh.cli.demonstration import Demo, DemoFailed, run

_LOGS = "state/ctlog/log-list.json"


def show(demo: Demo) -> None:
    """The whole demonstration. Raises :class:`DemoFailed`."""
    demo.step(
        "A log of certificates starts, in a process of its own: it waits for a CA to be there"
    )
    log_port = _free_port()
    ca_id = "spiffe://mesh.local/mesh/ca"
    log = demo.start("mesh-ctlog", "--listen", f"127.0.0.1:{log_port}", "--accept-ca", ca_id)
    demo.wait_for(log, r"Ready to log certificates")

    demo.step(
        "A certificate authority starts: a root, an issuing CA, an API on a unix socket and over TLS"
    )
    make_machine(demo.home / "machine7", "machine7")
    attestors = demo.home / "attestors.toml"
    attestors.write_text(f'[x509pop]\nroots = "{demo.home}/machine7/roots.pem"\n')
    shown_to = f"https://localhost:{log_port}"
    options = ("--port", "0", "--attestors", attestors.name, "--ct-log", shown_to)
    ca = demo.start("mesh-ca", *options)
    demo.wait_for(ca, r"Ready to issue certificates")

    demo.step(
        "A server makes a key, gets a certificate for it, and demands one from every caller, with the log's receipt"
    )
    allow = "spiffe://mesh.local/service/payment-worker"
    receipts = ("--require-sct", "1", "--ct-logs", _LOGS)
    listen = ("--listen", "127.0.0.1:0", "--ttl", "6s", "--allow", allow)
    server = demo.start("mesh-server", *listen, *receipts)
    port = demo.wait_for(server, r"Starting mTLS server on \S*:(\d+)")[1]
    demo.wait_for(server, r"Ready to accept")
    url = f"https://localhost:{port}"

    demo.step(
        "A client does the same and calls it: both prove who they are before anything is sent"
    )
    demo.run("mesh-client", "--server", url, "--export", "identity")
    demo.wait_for(server, r"Response sent to payment-worker: 200 OK")

    demo.step("Who has no certificate, the wrong name, or meets the wrong server, gets nowhere")
    demo.shown = re.compile(r"^\[SERVER\].* refused: (no-certificate|not-authorized)")
    demo.say(f"  a caller without a certificate is told: {_without_certificate(demo, int(port))}")
    demo.wait_for(server, r"no-certificate")
    stranger = "spiffe://mesh.local/service/stranger"
    demo.run("mesh-client", "--server", url, "--spiffe-id", stranger, expect=1, last=1)
    demo.wait_for(server, r"not-authorized")
    other = "spiffe://mesh.local/service/ledger"
    demo.run("mesh-client", "--server", url, "--server-id", other, expect=1, last=1)

    demo.step(
        "The server's 6-second certificate rotates under 20 requests; an open connection lives on"
    )
    demo.shown = re.compile(r"SERVER.*([Rr]otation|Hot-swapping|Active connections)")
    kept = _kept_connection(demo, int(port))
    _ask(kept)
    done = demo.run("mesh-client", "--server", url, "--repeat", "20", "--interval", "250ms", last=1)
    _ask(kept)
    kept.close()
    answers = done.count("Response: 200 OK")
    demo.say(
        f"  {answers} of 20 requests were answered 200 OK, and the connection opened before still works"
    )
    if answers != 20:
        raise DemoFailed("a request failed while the certificate rotated")
    demo.wait_for(server, r"Active connections: [1-9]")
    demo.shown = re.compile(r"^\[CA\].*(Join token made|answered)|^\[SERVER\].*(closed|refused)")

    demo.step("Another machine joins: the root's fingerprint and a token that is good once")
    worker = "spiffe://mesh.local/service/payment-worker"
    made = json.loads(
        demo.run("mesh-ctl", "token", "create", "--spiffe-id", worker, "--format", "json", last=0)
    )
    reaching = ("--ca-url", made["ca_url"], "--ca-fingerprint", made["fingerprint"])
    join = ("--server", url, *reaching, "--join-token", made["token"])
    demo.run("mesh-client", *join, "--state-dir", "elsewhere", last=1)
    demo.run("mesh-client", *join, "--state-dir", "a-thiefs", expect=1, last=1)

    demo.step("A third copies no secret: it proves itself by a certificate that it has already")
    selector = "x509pop:subject:cn:machine7"
    demo.run("mesh-ctl", "entry", "create", "--selector", selector, "--spiffe-id", worker, last=0)
    proving = ("--server", url, *reaching, "--attest")
    own = ("x509pop:machine7/machine.pem", "--state-dir", "machine7s")
    demo.run("mesh-client", *proving, *own, last=1)
    make_machine(demo.home / "forged", "machine7")
    forged = ("x509pop:forged/machine.pem", "--state-dir", "a-forgers")
    demo.run("mesh-client", *proving, *forged, expect=1, last=1)

    _stolen_key(demo, server, int(port))

    demo.step("A program that knows no TLS becomes a service of the mesh, without a changed line")
    proxy, sidecar = _sidecar(demo, allow)

    demo.step(
        "A certificate is revoked: its open connections are closed, and no new one is accepted"
    )
    demo.shown = re.compile(r"^\[(SERVER|PROXY)\].* (closed|refused): revoked")
    doors = {"the server": int(port), "the program behind the sidecar": int(sidecar)}
    opened = {whose: _kept_connection(demo, door) for whose, door in doors.items()}
    for connection in opened.values():
        _ask(connection)
    serial = _serial(demo)
    demo.run("mesh-ctl", "cert", "revoke", "--serial", serial, "--reason", "keyCompromise", "--yes")
    for whose, door in doors.items():
        took = f"{_closed_after(opened[whose]):.0f} ms after mesh-ctl was done"
        demo.say(f"  its open connection to {whose} is closed, {took}")
        demo.say(f"  a new one is told: {_refusal(demo, door)}")
    for judge in (server, proxy):
        demo.wait_for(judge, r"refused: revoked")

    demo.shown = re.compile("Stopp")
    demo.step("Anybody can look at what was issued")
    roots = ["--roots", "identity/svid_bundle.pem"]
    demo.run("pki-inspect", "verify", "identity/svid.pem", *roots)

    demo.step("SIGTERM: requests finish, exit status 0")
    for process in (proxy, server, ca, log):
        process.send_signal(signal.SIGTERM)
        if process.wait(15) != 0:
            raise DemoFailed(f"a service ended with {process.returncode}")


def _stolen_key(demo: Demo, server: subprocess.Popen[str], port: int) -> None:
    """What the key of the issuing CA is worth to whoever has stolen it, where receipts are demanded."""
    demo.step(
        "The issuing key is stolen: what it signs is good in every way, and no log has seen it"
    )
    demo.shown = re.compile(r"^\[SERVER\].* refused: no-sct")
    mint(demo.home / "state" / "ca", demo.home / "identity" / "svid.pem", demo.home / "stolen")
    roots = ("--roots", "identity/svid_bundle.pem")
    demo.run("pki-inspect", "verify", "stolen/svid.pem", *roots, last=1)
    demo.say(f"  whoever shows it to the server is told: {_refusal(demo, port, 'stolen')}")
    demo.wait_for(server, r"refused: no-sct")
    demo.say(
        "  while anybody can prove that the worker's own is in the log, and read which others are:"
    )
    demo.run("mesh-ctl", "ct", "prove", "identity/svid.pem", "--ct-logs", _LOGS, last=1)


def _sidecar(demo: Demo, caller: str) -> tuple[subprocess.Popen[str], str]:
    """mesh-proxy before Python's own web server, called by who may and by who may not; and its port."""
    pages = demo.home / "pages" / "api"
    pages.mkdir(parents=True)
    (pages / "status").write_text("healthy, and I have never heard of TLS")
    demo.shown = re.compile(r'^\[PROXY\].* (carries|is carried|refused)|"GET ')
    listen = ("--bind", "127.0.0.1", "--protocol", "HTTP/1.1", "--directory", "pages", "0")
    program = demo.start_module("http.server", *listen)
    target = demo.wait_for(program, r"Serving HTTP on \S+ port (\d+)")[1]
    name = "spiffe://mesh.local/service/pages"
    carried = ("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--allow", caller)
    proxy = demo.start("mesh-proxy", "--mode", "server", *carried, "--http", "--spiffe-id", name)
    port = demo.wait_for(proxy, r"carries \S+:(\d+) to")[1]
    demo.wait_for(proxy, r"Ready to carry")
    call = ("--server", f"https://localhost:{port}", "--server-id", name)
    demo.run("mesh-client", *call, last=3)
    demo.wait_for(program, r"GET /api/status")
    demo.wait_for(proxy, r"is carried to")
    stranger = "spiffe://mesh.local/service/stranger"
    demo.run("mesh-client", *call, "--spiffe-id", stranger, expect=1, last=1)
    demo.wait_for(proxy, r"refused: not-authorized")
    return proxy, port


def _without_certificate(demo: Demo, port: int) -> str:
    """What a TLS client sees that trusts our root and has no certificate."""
    context = ssl.create_default_context(cafile=str(demo.home / "identity" / "svid_bundle.pem"))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as tcp,
            context.wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /api/status HTTP/1.0\r\n\r\n")
            answer = tls.recv(100)
    except ssl.SSLError as error:
        return str(error.reason or error).lower().replace("_", " ")
    except ConnectionError as error:
        return str(error)
    raise DemoFailed(f"a caller without a certificate was answered: {answer!r}")


def _kept_connection(demo: Demo, port: int, whose: str = "identity") -> http.client.HTTPSConnection:
    """A connection that stays open, of Python's own TLS with the identity that was exported, or another."""
    identity = demo.home / whose
    context = ssl.create_default_context(cafile=str(demo.home / "identity" / "svid_bundle.pem"))
    context.load_cert_chain(identity / "svid.pem", identity / "svid_key.pem")
    return http.client.HTTPSConnection("localhost", port, context=context, timeout=10)


def _serial(demo: Demo) -> str:
    """Of the identity that was exported."""
    listed = demo.run(*("pki-inspect", "show", "identity/svid.pem", "--format", "json"), last=0)
    serial: str = json.loads(listed)[0]["serial"]
    return serial


def _closed_after(connection: http.client.HTTPSConnection) -> float:
    """Milliseconds until the other side has closed it."""
    began = time.monotonic()
    if connection.sock.recv(1):
        raise DemoFailed("the open connection of a revoked certificate was answered")
    return (time.monotonic() - began) * 1000


def _refusal(demo: Demo, port: int, whose: str = "identity") -> str:
    """What the identity that was exported meets now, or another."""
    try:
        _ask(_kept_connection(demo, port, whose))
    except ssl.SSLError as error:
        return str(error.reason or error).lower().replace("_", " ")
    except ConnectionError as error:
        return str(error)
    raise DemoFailed(f"{whose}/svid.pem was let in")


def _free_port() -> int:
    """One that nobody has: the log's port is in its name, so it is known before it starts."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def _ask(connection: http.client.HTTPSConnection) -> None:
    connection.request("GET", "/api/status")
    answer = connection.getresponse()
    if answer.status != 200 or b"healthy" not in answer.read():
        raise DemoFailed(f"the open connection was answered {answer.status}")


_BY_HAND = """
Now by hand, in three terminals (state is shared by default; see README.md):
  .venv/bin/twistd -n mesh-ca
  .venv/bin/twistd -n mesh-server
  bin/mesh-client"""


def main() -> int:
    """Returns the exit status."""
    return run(show, _BY_HAND)


if __name__ == "__main__":
    sys.exit(main())
