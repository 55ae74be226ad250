"""The real gRPC (grpcio) as a caller of our server, and as a server for our client."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.recipes.pages import need
from tests.running import is_listening, until
from tests.twisted_mesh.grpc.raw import ECHO, FOLLOW, TALK, Served
from tests.twisted_mesh.grpc.sockets import channel_to, own_reactor, run, served, turn_until
from twisted_mesh.grpc.client import GrpcChannel
from twisted_mesh.grpc.status import GrpcError, Status

pytestmark = pytest.mark.recipes
PEER = Path(__file__).with_name("grpcio_peer.py")


def test_grpcio_calls_our_server() -> None:
    need("grpc")
    ours = Served(clock=own_reactor(), key_of=lambda caller: "one process")
    with served(ours.server) as path:
        command = [sys.executable, str(PEER), "call", f"unix:{path}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
            turn_until(lambda: process.poll() is not None)
            assert process.stdout is not None
            said = json.loads(process.stdout.read())
        turn_until(lambda: not ours.server.connections)
    unknown = "there is no /a.A/Nothing here"
    assert said == {
        "echo": "hello",
        "large": 200_000,
        "too-large": [
            "RESOURCE_EXHAUSTED",
            "a message of 300000 bytes is too large: at most 262144 are taken",
        ],
        "unknown": ["UNIMPLEMENTED", unknown],
        "compressed": [
            "UNIMPLEMENTED",
            "messages are taken uncompressed only (grpc-encoding: identity)",
        ],
        "late": ["DEADLINE_EXCEEDED", said["late"][1]],
        "talk": ["A", "B", "C"],
        "too-many": "RESOURCE_EXHAUSTED",
        "after": "still here",
    }


@contextmanager
def serving(directory: Path) -> Iterator[tuple[GrpcChannel, subprocess.Popen[bytes]]]:
    """A client of ours to a server of grpcio's."""
    path = directory / "s"
    command = [sys.executable, str(PEER), "serve", f"unix:{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/") as process:
        try:
            until(lambda: is_listening(path) or process.poll() is not None)
            with channel_to(path) as channel:
                yield channel, process
        finally:
            process.kill()


def test_our_client_calls_grpcio(tmp_path: Path) -> None:
    need("grpc")
    large = bytes(range(256)) * 32_000

    async def talk(channel: GrpcChannel) -> list[bytes | None]:
        call = await channel.open(TALK)
        got = []
        for text in (b"a", b"b"):
            call.send(text)
            got.append(await call.receive())
        call.done()
        return [*got, await call.receive()]

    async def follow(channel: GrpcChannel) -> list[bytes]:
        call = await channel.stream(FOLLOW, b"500", seconds=20)
        got = []
        while (message := await call.receive()) is not None:
            got.append(message)
        return got

    with serving(tmp_path) as (channel, process):
        assert run(channel.unary(ECHO, b"hello", seconds=20)) == b"hello"
        assert run(channel.unary(ECHO, large, seconds=20)) == large
        assert run(talk(channel)) == [b"A", b"B", None]
        assert run(follow(channel)) == [b"%d" % number for number in range(500)]
        for _ in range(300):
            assert run(channel.unary(ECHO, b"again")) == b"again"
        with pytest.raises(GrpcError, match="kein Zutritt für 100 %") as denied:
            run(channel.unary(ECHO, b"fail"))
        assert denied.value.status is Status.PERMISSION_DENIED
        with pytest.raises(GrpcError) as unknown:
            run(channel.unary("/a.A/Nothing", b""))
        assert unknown.value.status is Status.UNIMPLEMENTED
        with pytest.raises(GrpcError) as late:
            run(channel.unary(FOLLOW, b"", seconds=0.1))
        assert late.value.status in {Status.DEADLINE_EXCEEDED, Status.INTERNAL}
        call = run(channel.stream(FOLLOW, b""))
        assert run(call.receive()) == b"forever"
        process.kill()
        with pytest.raises(GrpcError) as lost:
            run(call.receive())
        assert lost.value.status is Status.UNAVAILABLE
