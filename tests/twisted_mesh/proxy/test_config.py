"""The proxy's file and options: what they mean, and a sentence with the key and the cure for all that is wrong."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.python import usage

from pki.errors import Malformed, PkiError
from pki.spiffe import SpiffePattern
from twisted_mesh.proxy.config import parse_config
from twisted_mesh.proxy.listener import Bounds, Listener, Mode, Target
from twisted_mesh.taps.proxy_options import Options

PATH = Path("proxy.toml")
SHOP = "spiffe://mesh.local/service/shop"
SERVER = f'mode = "server"\nlisten = "8444"\ntarget = "127.0.0.1:80"\nallow = ["{SHOP}"]\n'
CLIENT = f'mode = "client"\nlisten = "81"\ntarget = "db:8444"\nverify = ["{SHOP}"]\n'


def table(*lines: str) -> str:
    return "[[listener]]\n" + "\n".join(lines) + "\n"


def parsed(*tables: str) -> tuple[Listener, ...]:
    return parse_config("".join(tables).encode(), PATH)


def test_a_file_has_listeners_of_both_modes() -> None:
    server, client = parsed(table(SERVER, 'name = "web"', 'idle-timeout = "10m"'), table(CLIENT))
    assert server == Listener(
        "web",
        Mode.SERVER,
        "8444",
        Target("127.0.0.1", 80),
        (SpiffePattern.parse(SHOP),),
        bounds=Bounds(idle=600),
    )
    assert client.name == "81"
    assert client.verify == (SpiffePattern.parse(SHOP),)
    assert client.target == Target("db", 8444)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no listener: write at least one table"),
        ("listener = 3", "has no listener"),
        ("[[listener]", "is no TOML: .*line 1"),
        ("[other]\nx = 1", "'other' is no key of it"),
        (table(SERVER, "http = 1"), r"listener 1: Expected `bool`, got `int` - at `\$.http`"),
        (table('mode = "server"'), "listener 1: Object missing required field `listen`"),
        (
            table(SERVER, "allows = []"),
            "'allows' is no key of a listener: there are allow, allow-dns",
        ),
        (table(SERVER.replace('"server"', '"both"')), "mode 'both' is neither server nor client"),
        (table(SERVER, 'name = "web"', 'verify = ["x"]'), "listener 'web': verify: "),
        (table(SERVER, f'verify = ["{SHOP}"]'), "verify is of mode client"),
        (table(CLIENT, f'allow = ["{SHOP}"]'), "allow is of mode server"),
        (table(CLIENT, "http = true"), "http is of mode server"),
        (table(CLIENT, "permissive = true"), "permissive is of mode server"),
        (table(SERVER, "http = true\nproxy-protocol = true"), "tell the same twice"),
        (table(SERVER.replace(f'"{SHOP}"', "")), "nobody could call: say who may with allow"),
        (table(CLIENT.replace(f'"{SHOP}"', "")), "nobody could answer: say who must with verify"),
        (
            table(SERVER.replace("127.0.0.1:80", "10.0.0.1:80")),
            "is another machine, and what is sent",
        ),
        (table(SERVER.replace("127.0.0.1:80", "80")), "target: '80' is no target: write HOST:PORT"),
        (table(SERVER, 'idle-timeout = "soon"'), "idle-timeout: 'soon' is not a duration"),
        (table(SERVER, 'connect-timeout = "0s"'), "connect-timeout is at least 1s"),
        (table(SERVER, "max-connections = 0"), "max-connections is a number from 1"),
        (table(SERVER, 'on-cut = "rst"'), "on-cut 'rst' is neither reset nor end"),
        (table(SERVER) + table(SERVER, 'name = "b"'), "two listeners have listen = '8444'"),
        (
            table(SERVER, 'name = "a"') + table(CLIENT, 'name = "a"'),
            "two listeners have name = 'a'",
        ),
        (table(SERVER, "x = 1") + table(CLIENT, "y = 1"), "listener 1: 'x' .*; listener 2: 'y' "),
    ],
)
def test_what_is_wrong_is_told(text: str, sentence: str) -> None:
    with pytest.raises(Malformed, match=rf"^--config proxy.toml.*{sentence}"):
        parsed(text)


def test_bytes_that_are_no_text_are_told() -> None:
    with pytest.raises(Malformed, match="is not UTF-8 "):
        parse_config(b"\xff", PATH)


@given(st.binary() | st.text().map(str.encode))
@example(b"x = " + b"9" * 5000)
@example(b"x = " + b"[" * 100_000)
@example(b"x = 9999-99-99")
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(PkiError):
        parse_config(data, PATH)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("tcp:127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("db.example:8444", "db.example:8444"),
        ("unix:/run/x", "unix:/run/x"),
        ("unix:///run/x", "unix:/run/x"),
        ("unix:x", "unix:x"),
    ],
)
def test_a_target_is_read_and_written(text: str, whole: str) -> None:
    target = Target.parse(text)
    assert str(target) == whole
    assert Target.parse(whole) == target


@pytest.mark.parametrize(
    "text", ["", "x", ":80", "x:", "x:0", "x:65536", "::1:80", "a b:80", "unix:"]
)
def test_what_is_no_target_is_told(text: str) -> None:
    with pytest.raises(Malformed, match=r"is no target|names no socket"):
        Target.parse(text)


@given(st.text())
def test_any_target_is_read_or_refused(text: str) -> None:
    try:
        target = Target.parse(text)
    except PkiError:
        return
    assert Target.parse(str(target)) == target


EVERYBODY = ("--mode", "server", "--listen", "1", "--target", "localhost:1", "--allow-all")


def options(*words: str) -> Options:
    found = Options()
    usage.Options.parseOptions(found, list(words))
    return found


def test_options_make_one_listener() -> None:
    words = ("--mode", "server", "--listen", "8444", "--target", "127.0.0.1:80")
    (listener,) = options(*words, "--allow", SHOP, "--max-connections", "7")["listeners"]
    assert listener == Listener(
        "8444",
        Mode.SERVER,
        "8444",
        Target("127.0.0.1", 80),
        (SpiffePattern.parse(SHOP),),
        bounds=Bounds(connections=7),
    )
    (everybody,) = options(*words, "--allow-all")["listeners"]
    assert [str(pattern) for pattern in everybody.allow] == ["spiffe://mesh.local/**"]
    (named,) = options(*words, "--allow-dns", "shop.example")["listeners"]
    assert named.allow_dns == ("shop.example",)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "--mode is needed, or --config"),
        (("--mode", "server", "--listen", "1"), "--target is needed, or --config"),
        (
            ("--config", "x.toml", "--mode", "server"),
            "--mode is of one listener: with --config, write it",
        ),
        (("--config", "x.toml", "--http"), "--http is of one listener"),
        (("--config", "x.toml", "--allow", SHOP), "--allow is of one listener"),
        (("--config", "x.toml", "--idle-timeout", "1s"), "--idle-timeout is of one listener"),
        (
            ("--mode", "server", "--listen", "1", "--target", "127.0.0.1:1"),
            "nobody could call: say who may with --allow",
        ),
        (
            ("--mode", "client", "--listen", "1", "--target", "a:1", "--allow", SHOP),
            "--allow is of mode server",
        ),
        (
            ("--mode", "server", "--listen", "1", "--target", "a:1", "--allow-all"),
            "or say --unsafe-target",
        ),
        (
            (*EVERYBODY, "--allow", SHOP),
            "leave it out, or write --allow spiffe://mesh.local/\\*\\*",
        ),
        ((*EVERYBODY, "--allow-dns", "shop.example"), "whatever rules stand beside it"),
        ((*EVERYBODY, "--on-cut", "rst"), "--on-cut 'rst' is neither"),
    ],
)
def test_options_that_cannot_be_used_are_told(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises((PkiError, usage.UsageError), match=sentence):
        options(*words)


def test_a_file_that_others_may_change_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_text(table(SERVER))
    path.chmod(0o644)
    (listener,) = options("--config", str(path))["listeners"]
    assert listener.mode is Mode.SERVER
    os.chmod(path, 0o666)
    with pytest.raises(PkiError, match="can be changed by others"):
        options("--config", str(path))
