"""The load: one job, as JSON on standard input, done by one process; what came of it on standard output.

A process of its own, so that it can have a core of its own. Only the standard library: what it
measures must not depend on what it measures with.
"""

import json
import os
import random
import re
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from tests.bench.processes import LOAD_CORE, script

_TIMEOUT = 20.0
_CLOSE = b"\r\nconnection: close"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def work(
    job: Mapping[str, Any], core: int | None = LOAD_CORE, module: str = "tests.bench.load"
) -> dict[str, Any]:
    """Have a process of its own, of ``module``, do ``job``; see :func:`_main`."""
    return finish(begin(job, core, module))


def begin(
    job: Mapping[str, Any], core: int | None = LOAD_CORE, module: str = "tests.bench.load"
) -> Any:
    """The same, without waiting: several may go on at once."""
    context = script(module, core)
    process = context.__enter__()
    process.stdin.write(json.dumps(job).encode())
    process.stdin.close()
    return context, process


def finish(begun: Any) -> dict[str, Any]:
    context, process = begun
    try:
        answer = process.stdout.read()
        if process.wait(_TIMEOUT) != 0:
            raise subprocess.CalledProcessError(process.returncode, "tests.bench.load")
        told: dict[str, Any] = json.loads(answer)
        return told
    finally:
        context.__exit__(None, None, None)


@define
class Outcome:
    """What one client, or all of them, came to."""

    done: int = 0
    handshakes: int = 0
    failures: Counter[str] = field(factory=Counter)
    waits: list[float] = field(factory=list)
    """Seconds until each answer, where they are told."""

    def add(self, other: "Outcome") -> None:
        self.done += other.done
        self.handshakes += other.handshakes
        self.failures += other.failures
        self.waits += other.waits


class Broken(Exception):
    """An answer that is not the one that was asked for."""


def _tls_context(job: Mapping[str, Any]) -> ssl.SSLContext:
    """Verifies the chain and not the host name: the mesh's names are SPIFFE IDs. The same for every server."""
    context = ssl.create_default_context(cafile=job["roots"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_cert_chain(job["certificate"], job["key"])
    return context


def _generation(kept: str, domain: str | None = None) -> dict[str, str]:
    """The files of one generation of an identity that is kept in a directory: they change together.

    ``domain`` is the trust domain of whom it is shown to, where that is another one.
    """
    home = os.path.realpath(os.path.join(kept, "current"))
    roots = f"svid_bundle.{domain}.pem" if domain else "svid_bundle.pem"
    names = {"certificate": "svid.pem", "key": "svid_key.pem", "roots": roots}
    return {what: os.path.join(home, name) for what, name in names.items()}


def _connect(job: Mapping[str, Any], context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", job["port"]), timeout=_TIMEOUT)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def _request(path: str, *, last: bool) -> bytes:
    close = "Connection: close\r\n" if last else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n".encode()


def _read_answer(connection: socket.socket, answer: bytes) -> bytes:
    """The body of one whole answer, of which ``answer`` has come already. Raises :class:`Broken`."""
    return _read_whole(connection, answer)[1]


def _read_whole(connection: socket.socket, answer: bytes) -> tuple[bytes, bytes]:
    """The same, with what stands before the body."""
    while b"\r\n\r\n" not in answer:
        answer += _more(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 2"):
        raise Broken(head.split(b"\r\n")[0].decode("ascii", "replace"))
    length = _LENGTH.search(head + b"\r\n")
    if length is None:
        raise Broken("no content-length")
    while len(body) < int(length[1]):
        body += _more(connection)
    return head, body


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise Broken("closed in the middle of an answer")
    return data


def handshakes(job: Mapping[str, Any]) -> Outcome:
    """For ``seconds``, ``clients`` threads: connect, shake hands, one request, read the answer, close."""
    context = _tls_context(job)
    request = _request(job["path"], last=True)
    end = time.monotonic() + job["seconds"]

    def client(outcome: Outcome) -> None:
        while time.monotonic() < end:
            with _connect(job, context) as connection:
                connection.sendall(request)
                _read_answer(connection, b"")
            outcome.done += 1
            outcome.handshakes += 1

    return _together(job["clients"], lambda number, outcome: client(outcome))


def kept_alive(job: Mapping[str, Any]) -> Outcome:
    """For ``seconds``, over each of ``clients`` connections that stay: one request after the other."""
    context = _tls_context(job)
    request = _request(job["path"], last=False)
    ready = threading.Barrier(job["clients"])

    def client(outcome: Outcome) -> None:
        with _connect(job, context) as connection:
            outcome.handshakes += 1
            ready.wait(_TIMEOUT)
            end = time.monotonic() + job["seconds"]
            while time.monotonic() < end:
                connection.sendall(request)
                _read_answer(connection, b"")
                outcome.done += 1

    return _together(job["clients"], lambda number, outcome: client(outcome))


def idle(job: Mapping[str, Any]) -> Outcome:
    """Open ``clients`` connections, one request on each, and keep them for ``seconds``."""
    context = _tls_context(job)
    request = _request(job["path"], last=False)
    outcome = Outcome()
    kept = []
    for _ in range(job["clients"]):
        connection = _connect(job, context)
        connection.sendall(request)
        _read_answer(connection, b"")
        kept.append(connection)
        outcome.done += 1
    time.sleep(job["seconds"])
    for connection in kept:
        connection.close()
    return outcome


def paced(job: Mapping[str, Any]) -> Outcome:
    """``requests`` by ``clients`` threads, spread over ``seconds``: kept-alive connections and new ones.

    ``seed`` draws how many requests each connection serves; the first client keeps one connection
    throughout. Every answer must name ``expected`` in its body. With ``targets`` each connection goes to one of
    these, whose facts take the place of the job's: ``plain`` ones without TLS. With ``kept`` the identity is what is
    in that directory at the moment of the connection, as mesh-agent keeps it there, and a server of another trust
    domain than that has a ``domain``. With ``until`` they go on at the
    same pace until there is that file.
    """
    kept = job.get("kept")
    context = None if kept else _tls_context(job)
    targets = job.get("targets") or [{}]
    each = job["requests"] // job["clients"]
    start = time.monotonic()

    def is_over() -> bool:
        return "until" not in job or os.path.exists(job["until"])

    def connect(to: Mapping[str, Any]) -> socket.socket:
        if to.get("plain"):
            return socket.create_connection(("127.0.0.1", to["port"]), timeout=_TIMEOUT)
        if context is not None:
            return _connect(to, context)
        return _connect(to, _tls_context({**job, **_generation(to["kept"], to.get("domain"))}))

    def ask(connection: socket.socket, to: Mapping[str, Any], *, last: bool) -> bool:
        """Whether the server takes more on this connection."""
        connection.sendall(_request(job["path"], last=last))
        head, body = _read_whole(connection, b"")
        if to["expected"].encode() not in body:
            raise Broken("the answer names another caller")
        return _CLOSE not in head.lower()

    def client(number: int, outcome: Outcome) -> None:
        draw = random.Random(job["seed"] * 1000 + number)
        asked = 0
        while asked < each or not is_over():
            length = each if number == 0 else draw.choice((1, 1, 1, 2, 5, 20))
            length = min(each - asked, length) if asked < each else length
            served, to = 0, {**job, **draw.choice(targets)}
            try:
                with connect(to) as connection:
                    outcome.handshakes += 1
                    for served in range(1, length + 1):
                        due = start + (asked + served - 1) * job["seconds"] / each
                        time.sleep(max(0.0, due - time.monotonic()))
                        is_last = served == length or (asked + served >= each and is_over())
                        goes_on = ask(connection, to, last=is_last)
                        outcome.done += 1
                        if is_last or not goes_on:
                            break
            except (OSError, Broken) as error:
                where = f" ({to['name']}, request {served})" if targets[0] else ""
                outcome.failures[f"{type(error).__name__}: {error}{where}"] += 1
                served = max(served, 1)
            asked += served

    return _together(job["clients"], client)


def _together(clients: int, client: Any) -> Outcome:
    outcomes = [Outcome() for _ in range(clients)]

    def run(number: int) -> None:
        try:
            client(number, outcomes[number])
        except Exception as error:  # counted, not lost in a thread
            outcomes[number].failures[f"{type(error).__name__}: {error}"] += 1

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Outcome()
    for outcome in outcomes:
        total.add(outcome)
    return total


def bulk(job: Mapping[str, Any]) -> Outcome:
    """For ``seconds``, over each of ``clients`` connections: ask for ``size`` bytes again and again; done are MB."""
    context = _tls_context(job)
    size = job["size"]

    def client(outcome: Outcome) -> None:
        buffer = bytearray(256 * 1024)
        with _connect(job, context) as connection:
            end = time.monotonic() + job["seconds"]
            while time.monotonic() < end:
                connection.sendall(b"%16d" % size)
                left = size
                while left:
                    got = connection.recv_into(buffer, min(left, len(buffer)))
                    if not got:
                        raise Broken("closed in the middle")
                    left -= got
                outcome.done += size // 1_000_000

    return _together(job["clients"], lambda number, outcome: client(outcome))


def round_trips(job: Mapping[str, Any]) -> Outcome:
    """For ``seconds``, over each of ``clients`` connections: 16 bytes there, 16 bytes back."""
    context = _tls_context(job)

    def client(outcome: Outcome) -> None:
        with _connect(job, context) as connection:
            end = time.monotonic() + job["seconds"]
            while time.monotonic() < end:
                connection.sendall(b"%16d" % 16)
                got = 0
                while got < 16:
                    data = connection.recv(16 - got)
                    if not data:
                        raise Broken("closed in the middle")
                    got += len(data)
                outcome.done += 1

    return _together(job["clients"], lambda number, outcome: client(outcome))


def posts(job: Mapping[str, Any]) -> Outcome:
    """For ``seconds``, over ``clients`` kept-alive plaintext connections: the same POST again and again."""
    body = job["body"].encode()
    head = (
        f"POST {job['path']} HTTP/1.1\r\nHost: localhost:{job['port']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    outcome = Outcome()
    end = time.monotonic() + job["seconds"]
    with selectors.DefaultSelector() as selector:
        for _ in range(job["clients"]):
            connection = socket.create_connection(("127.0.0.1", job["port"]), timeout=_TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, time.perf_counter())
        busy = job["clients"]
        while busy:
            ready = selector.select(_TIMEOUT)
            if not ready:
                raise Broken("nobody answered in time")
            for key, _ in ready:
                connection = key.fileobj
                answer = _read_answer(connection, b"")
                if job["expected"].encode() not in answer:
                    raise Broken(f"not what was asked for: {answer[:300]!r}")
                outcome.done += 1
                now = time.perf_counter()
                outcome.waits.append(now - key.data)
                if time.monotonic() < end:
                    connection.sendall(request)
                    selector.modify(connection, selectors.EVENT_READ, now)
                else:
                    selector.unregister(connection)
                    connection.close()
                    busy -= 1
    return outcome


def _main() -> None:
    job = json.load(sys.stdin)
    kinds: dict[str, Callable[[Mapping[str, Any]], Outcome]] = {
        **{"handshakes": handshakes, "kept-alive": kept_alive, "idle": idle},
        **{"paced": paced, "posts": posts, "bulk": bulk, "round-trips": round_trips},
    }
    kind = kinds[job["kind"]]
    start = time.perf_counter()
    outcome = kind(job)
    told = {
        "seconds": time.perf_counter() - start,
        "done": outcome.done,
        "handshakes": outcome.handshakes,
        "failures": dict(outcome.failures),
    }
    if waits := sorted(outcome.waits):
        told |= {"p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100]}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main()
