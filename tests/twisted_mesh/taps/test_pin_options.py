"""Pins by options and in files: what is meant, one sentence for what cannot be, and what is read again."""

import asyncio
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pki.errors import PkiError
from pki.svid.spki_pin import PinMode, PinSet
from pki.validity import rfc3339
from twisted_mesh.proxy.config import parse_config, parse_pins
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import StateError
from twisted_mesh.taps.pin_options import PinOptions
from twisted_mesh.taps.proxy_options import Options as ProxyOptions
from twisted_mesh.taps.server_options import Options as ServerOptions

RULE, OTHER = (
    f"spiffe://mesh.local/service/{name}=sha256/{'A' * 43}=,sha256/{'E' * 43}=" for name in "ab"
)
UNTIL = rfc3339(wall_clock() + timedelta(days=30))
LISTENER = (
    '[[listener]]\nmode = "server"\nlisten = "8444"\ntarget = "127.0.0.1:80"\n'
    'allow = ["spiffe://mesh.local/service/shop"]\n'
)
TABLE = f'[peer-pins]\npins = ["{RULE}"]\nmode = "enforce"\nuntil = {UNTIL}\n'


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", "/the/state")


def server(*words: str) -> ServerOptions:
    options = ServerOptions()
    options.parseOptions(["--allow", "spiffe://mesh.local/**", *words])
    return options


def proxy(*words: str) -> ProxyOptions:
    options = ProxyOptions()
    options.parseOptions([*words])
    return options


def file(directory: Path, text: str, name: str = "pins") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def test_without_any_there_are_none() -> None:
    assert server()["pins"] == server().wanted().pins == PinSet()


def test_options_say_all_of_it() -> None:
    words = ("--peer-pin", RULE, "--peer-pin", OTHER)
    pins = server(*words, "--peer-pin-mode", "enforce", "--peer-pin-until", UNTIL).wanted().pins
    assert [str(rule) for rule in pins.rules] == [RULE, OTHER]
    assert pins.enforced_at(wall_clock())
    assert server(*words).wanted().pins.mode is PinMode.REPORT


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--peer-pin", RULE.partition(",")[0]), "--peer-pin: .*one pin: give two at least"),
        (("--peer-pin", RULE[:-1]), "--peer-pin: .*pin 2: .* 44 characters of base64"),
        (("--peer-pin", RULE.replace("sha256", "sha1")), "there is no other algorithm"),
        (("--peer-pin", RULE, "--peer-pin", RULE), "has two rules"),
        (("--peer-pin-mode", "enforce"), "--peer-pin-mode says nothing without a pin"),
        (("--peer-pin", RULE, "--peer-pin-mode", "on"), "neither report nor enforce"),
        (("--peer-pin", RULE, "--peer-pin-mode", "enforce"), "need an end"),
        (("--peer-pin", RULE, "--peer-pin-until", "30d"), "would begin anew at each start"),
        (("--peer-pin-file", "/nowhere/pins"), "--peer-pin-file"),
    ],
)
def test_what_cannot_be_used_ends_the_start_in_one_sentence(
    words: tuple[str, ...], why: str
) -> None:
    with pytest.raises(SystemExit, match=f"^mesh-server: .*{why}") as refused:
        server(*words)
    assert str(refused.value).isprintable()


def test_a_file_adds_to_them_and_others_may_not_change_it(tmp_path: Path) -> None:
    path = file(tmp_path, f"{OTHER}\nmode enforce\nuntil {UNTIL}\n")
    pins = server("--peer-pin", RULE, "--peer-pin-file", path).wanted().pins
    assert [str(rule) for rule in pins.rules] == [RULE, OTHER]
    assert pins.enforced_at(wall_clock())
    Path(path).chmod(0o666)
    with pytest.raises(SystemExit, match=r"--peer-pin-file|chmod"):
        server("--peer-pin-file", path)


class Store:
    """Takes pins."""

    def __init__(self, pins: PinSet) -> None:
        self.trust = SimpleNamespace(pins=pins)

    def pin(self, pins: PinSet) -> None:
        self.trust.pins = pins


def reread(options: PinOptions, store: Any) -> str:
    (thing,) = options.reread_pins(store)
    return asyncio.run(thing.again())  # type: ignore[arg-type]


def test_a_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = file(tmp_path, f"{RULE}\nmode enforce\nuntil {UNTIL}\n")
    options = server("--peer-pin-file", path)
    store = Store(options["pins"])
    file(tmp_path, f"{RULE}\nmode report\nuntil {UNTIL}\n")
    assert reread(options, store) == "new: mode report; gone: mode enforce"
    assert reread(options, store) == ""
    before = store.trust.pins
    for text in (f"{RULE}\nmode maybe\n", "", "# nothing\n"):
        file(tmp_path, text)
        with pytest.raises(PkiError, match="--peer-pin-file"):
            reread(options, store)
        assert store.trust.pins is before
    Path(path).unlink()
    with pytest.raises(StateError):
        reread(options, store)
    assert server("--peer-pin", RULE).reread_pins(store) == [], "an option is not read again"  # type: ignore[arg-type]


# The proxy.


def test_a_proxy_has_them_by_options_too() -> None:
    listener = (
        "--mode",
        "server",
        "--listen",
        "1",
        "--target",
        "127.0.0.1:80",
        "--allow",
        "spiffe://a/b",
    )
    assert [str(rule) for rule in proxy(*listener, "--peer-pin", RULE)["pins"].rules] == [RULE]


def test_a_table_of_its_file_says_all_of_it(tmp_path: Path) -> None:
    config = file(tmp_path, LISTENER + TABLE, "proxy.toml")
    options = proxy("--config", config)
    assert options.wanted().pins.enforced_at(wall_clock())
    store = Store(options["pins"])
    file(tmp_path, LISTENER, "proxy.toml")
    assert "gone:" in reread(options, store)
    assert not store.trust.pins
    assert len(options["listeners"]) == 1
    quoted = TABLE.replace(UNTIL, f'"{UNTIL}"')
    file(tmp_path, LISTENER + quoted, "proxy.toml")
    assert "new:" in reread(options, store)


def test_options_and_the_table_do_not_say_the_same_twice(tmp_path: Path) -> None:
    config = file(tmp_path, LISTENER + TABLE, "proxy.toml")
    with pytest.raises(SystemExit, match=r"has a table \[peer-pins\], and --peer-pin"):
        proxy("--config", config, "--peer-pin", RULE)
    path = file(tmp_path, RULE)
    with pytest.raises(SystemExit, match=r"has a table \[peer-pins\], and --peer-pin"):
        proxy("--config", config, "--peer-pin-file", path)
    without = file(tmp_path, LISTENER, "other.toml")
    assert proxy("--config", without, "--peer-pin-file", path)["pins"]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("[peer-pins]\n", r"\[peer-pins\]: .*missing required field `pins`"),
        ("[peer-pins]\npins = []\n", "has no pin"),
        ("[peer-pins]\npins = 3\n", r"\[peer-pins\]: Expected"),
        (f'[peer-pins]\npins = ["{RULE}"]\nmodes = "report"\n', "unknown field `modes`"),
        (f'[peer-pins]\npins = ["{RULE}"]\nmode = "loud"\n', "mode 'loud' is neither"),
        (f'[peer-pins]\npins = ["{RULE}"]\nmode = "enforce"\n', "need an end.* give until"),
        (f'[peer-pins]\npins = ["{RULE}"]\nuntil = 2027-03-01\n', r"\[peer-pins\]"),
        (f'[peer-pins]\npins = ["{RULE}"]\nuntil = 2026-03-01T00:00:00\n', "is not a time"),
        (f'[peer-pins]\npins = ["{RULE[:-1]}"]\n', "pins: .*44 characters of base64"),
        ("peer-pins = 3\n", r"\[peer-pins\]: Expected"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_so(table: str, why: str) -> None:
    text = (table + LISTENER if table.startswith("peer") else LISTENER + table).encode()
    with pytest.raises(PkiError, match=why):
        parse_pins(text, Path("proxy.toml"), wall_clock())
    assert len(parse_config(text, Path("proxy.toml"))) == 1
