"""A metadata service on loopback, as platforms have one on each machine; and one that misbehaves."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field, frozen

SESSION = "AQAEAGz-session-token=="
DOCUMENT = "/latest/dynamic/instance-identity/rsa2048"


@frozen
class Asked:
    method: str
    path: str
    headers: dict[str, str]


@define(eq=False)
class MetadataService:
    """Answers as IMDSv2 does: a session first, then what is asked for under it."""

    pages: dict[str, bytes] = field(factory=dict)
    session: bytes = SESSION.encode()
    misbehave: Callable[[BaseHTTPRequestHandler], None] | None = None
    asked: list[Asked] = field(factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.command, request.path, headers))
        if self.misbehave is not None:
            self.misbehave(request)
            return
        if request.command == "PUT" and request.path == "/latest/api/token":
            is_good = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
            send(request, 200 if is_good else 400, self.session if is_good else b"")
        elif headers.get("x-aws-ec2-metadata-token") != SESSION:
            send(request, 401, b"")
        elif request.command == "GET" and request.path in self.pages:
            send(request, 200, self.pages[request.path])
        else:
            send(request, 404, b"")


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def serving(
    service: MetadataService, tls: ssl.SSLContext | None = None
) -> Iterator[MetadataService]:
    """While the block runs it listens, by TLS perhaps, and is gone afterwards."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.answer(self)

        do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        scheme = "http" if tls is None else "https"
        service.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
