"""What could not be reached is told apart by what the kernel says, and by how far the attempt came."""

import errno
import os
from pathlib import Path

import pytest
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
    UserError,
)

from twisted_mesh.runtime import reach as reach_module
from twisted_mesh.runtime.reach import (
    Reach,
    closed_on_the_way,
    spoken_in,
)
from twisted_mesh.runtime.socket_path import MOST_SOCKET_PATH, too_long

SERVER = Reach("https://server.example:9443", host="server.example", seconds=10)


def connect_error(number: int) -> ConnectError:
    return ConnectError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "detail", "remedy"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), "nobody listens there", "start it"),
        (TCPTimedOutError(errno.ETIMEDOUT, ""), "no connection within 10 s", "a firewall"),
        (TimeoutError(), "no connection within 10 s, and no refusal, or its name", "host is down"),
        (NoRouteError(errno.ENETUNREACH, ""), "no way leads there from here", "network"),
        (connect_error(errno.EHOSTUNREACH), "No route to host", "check the address"),
        (connect_error(errno.EACCES), "this machine lets nobody connect there", "its firewall"),
        (DNSLookupError("x"), "the name server.example cannot be looked up", "how it is spelt"),
        (ConnectBindError(errno.EMFILE, ""), "no file descriptor left", "ulimit -n"),
        (OSError(errno.ENFILE, ""), "no file descriptor left", "LimitNOFILE="),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
def test_each_cause_has_its_words_and_its_cure(error: Exception, detail: str, remedy: str) -> None:
    why = SERVER.why(error)
    assert why is not None
    assert detail in why[0]
    assert remedy in why[1]
    assert isinstance(error, ConnectionRefusedError) or "start it" not in why[1]


@pytest.mark.parametrize("error", [UserError(), connect_error(errno.EXDEV), ValueError("x")])
def test_what_is_not_known_is_not_made_up(error: Exception) -> None:
    assert SERVER.why(error) is None


def test_who_takes_connections_and_says_nothing_runs() -> None:
    reach = Reach("https://127.0.0.1:1", host="127.0.0.1")
    reach.is_connected = True
    assert reach.why(TimeoutError()) == (
        "it takes connections, and did not answer in time",
        "it runs: look in its log what it is busy with",
    )


def test_a_name_that_cannot_be_looked_up_for_want_of_descriptors_is_not_to_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach_module, "lack_of_descriptors", lambda: ("none left", "raise it"))
    assert SERVER.why(DNSLookupError("x")) == ("none left", "raise it")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "this user may not use the socket"),
        (errno.ENOENT, "no socket is there"),
        (errno.EMFILE, "no file descriptor left"),
    ],
)
def test_a_socket_is_told_by_the_kernels_number(number: int, words: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    why = Reach(f"unix:{path}", path=path).why(connect_error(number))
    assert why is not None
    assert words in why[0]


def test_a_path_through_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "s")
    why = Reach(f"unix:{path}", path=path).why(connect_error(errno.ENOTDIR))
    assert why == (f"{tmp_path}/file is no directory", "check the path")


def test_a_path_is_as_long_as_a_socket_has_room_for() -> None:
    assert too_long(Path("/" + "x" * (MOST_SOCKET_PATH - 1))) is None
    told = too_long(Path("/" + "é" * MOST_SOCKET_PATH))
    assert told is not None
    assert told.endswith(f"{2 * MOST_SOCKET_PATH + 1} bytes, and {MOST_SOCKET_PATH} are the most")


def test_open_directories_are_in_nobodys_way(tmp_path: Path) -> None:
    assert closed_on_the_way(tmp_path / "s") is None
    assert closed_on_the_way(tmp_path / "missing" / "s") is None


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (b"\x16\x03\x01\x02", "TLS"),
        (b"\x15\x03", "TLS"),
        (b"\x16", None),
        (b"HTTP/1.1 400", "plain HTTP"),
        (b"SSH-2.0-x", "SSH"),
        (b"220 mail", None),
        (b"", None),
    ],
)
def test_a_protocol_is_known_by_its_first_bytes(first: bytes, what: str | None) -> None:
    assert spoken_in(first) == what
