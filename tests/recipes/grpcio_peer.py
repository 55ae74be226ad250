"""The real gRPC (grpcio) as a process of its own: ``serve SOCKET``, or ``call SOCKET``, which says what came."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

ECHO, FOLLOW, TALK = "/a.A/Echo", "/a.A/Follow", "/a.A/Talk"


def serve(address: str) -> None:
    """The same methods as in ``tests/twisted_mesh/grpc/raw.py``, until standard input ends."""

    def echo(request: bytes, context: Any) -> bytes:
        if request == b"fail":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "kein Zutritt für 100 %")
        return request

    def follow(request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request or b"0")):
            yield b"%d" % number
        if not request:
            context.add_callback(lambda: print("ended", flush=True))
            yield b"forever"
            while context.is_active():
                context.time_remaining()

    def talk(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Follow": grpc.unary_stream_rpc_method_handler(follow),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    server = grpc.server(
        ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.A", handlers),))
    server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    sys.stdin.read()
    server.stop(0)


def call(address: str) -> None:
    """Each kind of call, and each mistake that it can be made to make."""
    said: dict[str, Any] = {}

    def status(name: str, *asked: Any, **how: Any) -> None:
        try:
            said[name] = channel.unary_unary(how.pop("path", ECHO))(*asked, **how).decode()
        except grpc.RpcError as error:
            said[name] = [error.code().name, error.details()]  # type: ignore[attr-defined]

    with grpc.insecure_channel(address) as channel:
        status("echo", b"hello", timeout=20)
        said["large"] = len(channel.unary_unary(ECHO)(b"x" * 200_000, timeout=20))
        status("too-large", b"x" * 300_000, timeout=20)
        status("unknown", b"x", path="/a.A/Nothing")
        status("compressed", b"x" * 1000, compression=grpc.Compression.Gzip)
        status("late", b"x", path=FOLLOW, timeout=0.1)
        said["talk"] = [
            answer.decode() for answer in channel.stream_stream(TALK)(iter([b"a", b"b", b"c"]))
        ]
        streams = [channel.unary_stream(FOLLOW)(b"") for _ in range(110)]
        try:
            for stream in streams[100:]:
                next(stream)
        except grpc.RpcError as error:
            said["too-many"] = error.code().name  # type: ignore[attr-defined]
        for stream in streams:
            stream.cancel()
        status("after", b"still here")
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
