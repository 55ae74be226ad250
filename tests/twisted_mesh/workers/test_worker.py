"""A worker as its parent sees it: what it says, first of all, and how it ends. The test is the parent."""

import asyncio
import base64
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import define, field

from tests.running import PATIENCE
from tests.twisted_mesh.workers.test_relay import Client, relay
from twisted_mesh.http.json import parse_json
from twisted_mesh.workers.channel import Frames, framed
from twisted_mesh.workers.messages import (
    MOST_TO_PARENT,
    MOST_TO_WORKER,
    Asked,
    Assignment,
    FromWorker,
    Stop,
)

_PROGRAM = (
    "import os, sys; os.dup2({channel}, 3); os.dup2({door}, 4); "
    "from twisted_mesh.taps.worker import main; sys.exit(main())"
)


@define(eq=False)
class Parent:
    """One end of the channel."""

    channel: socket.socket
    process: "subprocess.Popen[bytes]"
    heard: list[bytes] = field(factory=list)
    _frames: Frames = field(factory=lambda: Frames(MOST_TO_PARENT))

    def say(self, message: Any) -> None:
        self.channel.sendall(framed(message, MOST_TO_WORKER))

    def next(self) -> Any:
        """What it says next that is no sign of life."""
        while True:
            data = self.channel.recv(65536)
            assert data, self.process.communicate()
            for body in self._frames.feed(data):
                self.heard.append(body)
                if b'"alive"' not in body:
                    return parse_json(body, FromWorker)  # type: ignore[arg-type]

    def end(self) -> tuple[int, str]:
        said, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, (said + errors).decode()


@contextmanager
def worker(home: Path, **more: Any) -> Iterator[Parent]:
    members = {
        "program": "mesh-server",
        "number": 1,
        "count": 1,
        "parent": os.getpid(),
        "words": [f"--state-dir={home}", "--spiffe-id=spiffe://mesh.local/service/backend"],
        "texts": {},
        "sockets": 1,
        "ca": "unix:/nowhere/ca.sock",
    }
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as door:
        command = _PROGRAM.format(channel=theirs.fileno(), door=door.fileno())
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", command],
            pass_fds=(theirs.fileno(), door.fileno()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        ours.settimeout(PATIENCE)
        parent = Parent(ours, process)
        parent.say(Assignment(**{**members, **more}))
        try:
            yield parent
        finally:
            process.kill()
            process.communicate()


def test_it_asks_with_a_csr_and_says_nothing_of_its_key(tmp_path: Path) -> None:
    with worker(tmp_path) as parent:
        asked = parent.next()
        assert isinstance(asked, Asked)
        assert (asked.method, asked.path) == ("POST", "/api/v1/sign")
        request = msgspec.json.decode(asked.body or b"")
        assert set(request) == {"csr", "requested_id"}
        assert request["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
        # What a CA of a test issues is not of today: the worker refuses it, and asks anew with another key.
        client = Client()
        parent.say(asyncio.run(relay(client).answer(1, asked)))
        csrs = {request["csr"]}
        while len(csrs) < 2:
            asked = parent.next()
            if asked.path == "/api/v1/sign":
                csrs.add(msgspec.json.decode(asked.body or b"")["csr"])
            parent.say(asyncio.run(relay(client).answer(1, asked)))
        said = b"".join(parent.heard)
        for body in parent.heard:
            said += base64.b64decode(msgspec.json.decode(body).get("body", ""))
        assert b"PRIVATE" not in said
        parent.say(Stop())
        status, text = parent.end()
        assert status == 0
        assert "[SERVER 1] Stopped" in text
        assert "PRIVATE" not in text
    assert not [path for path in tmp_path.rglob("*") if b"PRIVATE" in _bytes(path)]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_without_its_parent_it_ends_at_once(tmp_path: Path) -> None:
    with worker(tmp_path) as parent:
        parent.next()
        parent.channel.close()
        status, text = parent.end()
        assert status == 1
        assert "the parent of this worker is gone, and so is the worker" in text


def test_one_of_another_parent_does_not_begin(tmp_path: Path) -> None:
    with worker(tmp_path, parent=1) as parent:
        assert parent.end() == (1, "")


def test_one_that_cannot_start_says_why_in_a_sentence(tmp_path: Path) -> None:
    with worker(tmp_path, words=["--rotate-at=2"]) as parent:
        assert parent.end() == (
            1,
            "mesh-server: --rotate-at is a share of the lifetime from 0.1 to 0.9, like 0.5\n",
        )


@pytest.mark.parametrize("said", [b"", b"\0\0\0\2{}", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n"])
def test_nobody_else_can_use_it(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(said)
        ours.shutdown(socket.SHUT_WR)
        command = _PROGRAM.format(channel=theirs.fileno(), door=theirs.fileno())
        done = subprocess.run(
            [sys.executable, "-P", "-c", command],
            pass_fds=(theirs.fileno(),),
            capture_output=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert b"this is started by mesh-server and mesh-proxy (--workers)" in done.stderr


@pytest.mark.parametrize("place", ["os.devnull", "sys.executable", None])
def test_started_by_hand_it_says_whose_it_is(place: str | None) -> None:
    opened = f"os.dup2(os.open({place}, os.O_RDONLY), 3)" if place else "os.closerange(3, 100)"
    command = (
        f"import os, sys; {opened}; from twisted_mesh.taps.worker import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", command], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert done.stderr == (
        b"this is started by mesh-server and mesh-proxy (--workers), and by nobody else\n"
    )
