"""``--policy``: what each service asks it about, and what cannot be one."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pki.rules.errors import BadPolicy
from pki.rules.facts import RuleAction
from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.policy_files import read_policy, unit_test_texts
from twisted_mesh.taps.proxy_options import Options as ProxyOptions
from twisted_mesh.taps.server_options import Options as ServerOptions

ANYBODY = 'version = 1\n[[rule]]\nname = "anybody"\neffect = "allow"\nwhen = "true"\n'
DENYING = ANYBODY.replace("anybody", "nobody").replace("allow", "deny")
CALLED = ANYBODY.replace("[[rule]]", '[[rule]]\non = ["accept"]')


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", "/the/state")


def server(*words: str) -> ServerOptions:
    options = ServerOptions()
    options.parseOptions(["--allow", "spiffe://mesh.local/**", *words])
    return options


def proxy(mode: str, *words: str) -> ProxyOptions:
    options = ProxyOptions()
    whose = "--allow" if mode == "server" else "--verify"
    options.parseOptions(
        [
            *("--mode", mode, "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1"),
            *(whose, "spiffe://mesh.local/**", *words),
        ]
    )
    return options


def written(directory: Path, text: str = ANYBODY, name: str = "p.toml") -> str:
    path = directory / name
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_without_it_nothing_is_asked() -> None:
    assert server()["peer-policy"] is None
    assert server().wanted().policy is None
    assert proxy("server").wanted().policy is None


def test_a_server_is_asked_of_callers_and_a_proxy_of_what_it_does(tmp_path: Path) -> None:
    file = written(tmp_path)
    for options, actions in (
        (server("--policy", file), {RuleAction.ACCEPT}),
        (proxy("server", "--policy", file), {RuleAction.ACCEPT}),
        (proxy("client", "--policy", file), {RuleAction.CONNECT}),
    ):
        policy = options.wanted().policy
        assert policy is not None
        assert set(policy.actions) == actions


def test_a_proxy_whose_policy_has_no_rule_for_its_way_does_not_start(tmp_path: Path) -> None:
    file = written(tmp_path, CALLED)
    assert proxy("server", "--policy", file)["peer-policy"] is not None
    with pytest.raises(SystemExit, match="could allow connect: nobody would be let in"):
        proxy("client", "--policy", file)


def test_a_directory_is_all_its_files_but_those_of_tests(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, ANYBODY.replace("anybody", "others"), "q.toml")
    written(tmp_path, "nonsense", "p.test.toml")
    written(tmp_path, "nonsense", ".hidden.toml")
    written(tmp_path, "nonsense", "README.md")
    assert [rule.name for rule in read_policy(tmp_path).rules] == ["anybody", "others"]
    assert (
        list(unit_test_texts(tmp_path))
        == list(unit_test_texts(tmp_path / "p.toml"))
        == ["p.test.toml"]
    )
    assert not unit_test_texts(tmp_path / "q.toml")


def test_where_the_file_that_denied_is_gone_at_sighup_the_old_rules_stay(tmp_path: Path) -> None:
    written(tmp_path)
    denying = Path(written(tmp_path, DENYING, "q.toml"))
    options = server("--policy", str(tmp_path))
    taken: list[Any] = []
    store: Any = SimpleNamespace(
        trust=SimpleNamespace(policy=options.wanted().policy), govern=taken.append
    )
    (reread,) = options.reread_policy(store)
    denying.unlink()
    with pytest.raises(BadPolicy, match=r"q\.toml is gone"):
        result_of(reread.again())
    assert not taken
    written(tmp_path, "version = 1", "q.toml")
    assert result_of(reread.again()).startswith("1 rules")
    assert len(taken) == 1


def test_what_cannot_be_read_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has no file"):
        read_policy(tmp_path)
    with pytest.raises(StateError, match="cannot be read"):
        read_policy(tmp_path / "nowhere")
    written(tmp_path).encode()
    (tmp_path / "p.toml").write_bytes(b"\xff")
    with pytest.raises(StateError, match="no text in UTF-8"):
        read_policy(tmp_path)
    (tmp_path / "p.toml").chmod(0o666)
    with pytest.raises(StateError, match=r"p\.toml"):
        read_policy(tmp_path)
    for at in range(101):
        written(tmp_path, ANYBODY, f"{at}.toml")
    with pytest.raises(StateError, match="over 100 files"):
        read_policy(tmp_path)


def test_a_service_without_a_policy_loads_nothing_of_it() -> None:
    asked = (
        "import sys, twisted_mesh.taps.server, twisted_mesh.taps.proxy;"
        "print([name for name in sys.modules if name == 'cel' or name.startswith('pki.rules')])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
