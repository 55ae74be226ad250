"""Callers who prove nothing, as a program: ``python -m … tls:PORT|unix:PATH ROOT|- COUNT AT_ONCE [UID]``.

Each asks for a signature, again and again, on connections of twenty requests. Prints ``under way`` and
in the end how often each status was answered, as JSON. With a UID it calls as that user.
"""

import asyncio
import json
import os
import ssl
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

_ON_ONE_CONNECTION = 20
_BODY = b'{"csr": "-----BEGIN CERTIFICATE REQUEST-----", "requested_id": "spiffe://mesh.local/service/x"}'
_ASKED = (
    b"POST /api/v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
#: A second without an answer is a refusal too: a flood does not wait.
_PATIENCE = 10.0


class Strangers:
    def __init__(self, target: str, root: str, count: int) -> None:
        self.kind, _, self.where = target.partition(":")
        self.context = ssl.create_default_context(cafile=root) if root != "-" else None
        self.left = count
        self.answered: Counter[str] = Counter()

    async def connect(self) -> Any:
        if self.kind == "unix":
            return await asyncio.open_unix_connection(self.where)
        return await asyncio.open_connection(
            "127.0.0.1", int(self.where), ssl=self.context, server_hostname="localhost"
        )

    async def ask(self) -> None:
        while self.left > 0:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self.converse()
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.left -= 1
                self.answered[type(error).__name__] += 1

    async def converse(self) -> None:
        reader, writer = await self.connect()
        try:
            for _ in range(_ON_ONE_CONNECTION):
                if self.left <= 0:
                    break
                writer.write(_ASKED)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").lower().split("\r\n")
                size = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
                await reader.readexactly(size)
                self.left -= 1
                self.answered[head.split()[1].decode()] += 1
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def run(self, at_once: int) -> None:
        print("under way", flush=True)
        await asyncio.gather(*(self.ask() for _ in range(at_once)))
        print(json.dumps(self.answered), flush=True)


def main(target: str, root: str, count: str, at_once: str, uid: str = "") -> None:
    strangers = Strangers(target, root, int(count))
    if uid:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    asyncio.run(strangers.run(int(at_once)))


if __name__ == "__main__":
    main(*sys.argv[1:])
