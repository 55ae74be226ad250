"""The peer: mutual TLS 1.3 with asyncio and the standard library's ssl, and the least HTTP that answers.

It believes whomever the root vouches for, names nobody, logs nothing, and sends no session tickets.
"""

import asyncio
import ssl
import sys
from typing import Any

_BODY = b'{"status":"healthy","caller":"somebody"}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(_BODY)


class Answering(asyncio.Protocol):
    transport: Any

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            last = b"connection: close" in head.lower()
            self.transport.write(
                _HEAD + (b"Connection: close\r\n\r\n" if last else b"\r\n") + _BODY
            )
            if last:
                self.transport.close()


class Streaming(asyncio.Protocol):
    """As that of own_server: a number of sixteen bytes gets so many bytes back."""

    transport: Any

    def __init__(self) -> None:
        self._asked = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        while len(self._asked) >= 16:
            size, self._asked = int(self._asked[:16]), self._asked[16:]
            self.transport.write(bytes(size))


async def main(certificate: str, key: str, roots: str, kind: str = "http") -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(roots)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        Streaming if kind == "stream" else Answering, "127.0.0.1", 0, ssl=context, backlog=1024
    )
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    stopped = asyncio.Event()
    loop.add_signal_handler(15, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
