"""``agent``: what is asked of the CA, what is shown, and what is said before an agent is ended."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner

from tests.authorities import MESH
from tests.twisted_mesh.cli.ctl.registered import TIME, Ca, certificate, registration
from twisted_mesh.api.agent_messages import AgentRow, EndAgent, NewAgentToken
from twisted_mesh.cli.ctl import agent as command_line
from twisted_mesh.cli.ctl import session
from twisted_mesh.cli.program import Unusable

NODE = f"spiffe://{MESH}/mesh/agent/node-1"
JOINED = AgentRow("node-1", NODE, "joined", TIME, 1, TIME, "2a", TIME)
ENTRY = registration("e1", "/service/web", "unix:uid:7", parent=NODE, hint="main")
OTHERS = registration("e2", "/service/db", "unix:uid:8", parent=NODE.replace("1", "2"))


def typed(monkeypatch: pytest.MonkeyPatch, ca: Ca, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line whose work is done with ``ca``."""

    def administer(reach: Any, work: Any) -> int:
        status: int = asyncio.run(work(ca))
        return status

    monkeypatch.setattr(session, "administer", administer)
    done = CliRunner().invoke(command_line.command, words, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.stdout, done.stderr


def test_a_token_comes_with_the_line_that_starts_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Ca()
    status, said, _ = typed(
        monkeypatch, ca, *["token", "create", "node-1", "--ttl", "1h", "--reason", "why"]
    )
    assert status == 0
    assert ca.acts == [NewAgentToken("node-1", "1h", None, "why")]
    assert f"one certificate of {NODE}" in said
    assert (
        "mesh-agent --name node-1 --ca-url https://ca.example:8443 --ca-fingerprint sha256:" in said
    )
    assert "--join-token mj1_secret" in said
    assert f"mesh-ctl entry create --parent {NODE} --selector" in said


@pytest.mark.parametrize("name", ["", "Node", "a/b", "-a", "a" * 65, "..", "nöde"])
def test_what_is_no_name_is_said_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for words in (["token", "create"], ["show"], ["evict", "--yes"], ["ban", "--yes"], ["unban"]):
        with pytest.raises(Unusable, match="no name of an agent"):
            typed(monkeypatch, Ca(), *words, "--", name)


def test_agents_are_listed_and_shown_with_their_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Ca(entries=[ENTRY, OTHERS], agents_=[JOINED])
    _, said, _ = typed(monkeypatch, ca, "list")
    assert said.splitlines()[1].split()[:3] == ["node-1", "joined", "1"]
    _, said, _ = typed(monkeypatch, ca, "list", "--format", "json")
    assert [row["name"] for row in json.loads(said)] == ["node-1"]
    _, said, _ = typed(monkeypatch, ca, "show", "node-1")
    assert "unix:uid:7" in said
    assert "main" in said
    assert "unix:uid:8" not in said
    _, said, _ = typed(monkeypatch, ca, "show", "node-1", "--format", "json")
    assert [entry["id"] for entry in json.loads(said)["entries"]] == ["e1"]


def test_a_dry_run_lists_what_would_be_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Ca(agents_=[JOINED], certificates=[certificate(42, "/service/web", "e1")])
    status, said, told = typed(monkeypatch, ca, "ban", "node-1", "--dry-run")
    assert (status, ca.acts) == (0, [])
    assert ca.asked[-1] == {"agent": NODE, "status": "valid"}
    assert "/service/web" in said
    assert "1 certificate would be revoked" in told


@pytest.mark.parametrize(
    ("words", "how", "said"),
    [
        ("evict node-1 --yes --reason r", EndAgent("evict", "r"), "evicted; 1 certificate revoked"),
        ("ban node-1 --yes", EndAgent("ban"), "banned; 1 certificate revoked"),
        ("unban node-1", EndAgent("unban"), "unbanned"),
    ],
    ids=["evict", "ban", "unban"],
)
def test_an_agent_is_ended(
    monkeypatch: pytest.MonkeyPatch, words: str, how: EndAgent, said: str
) -> None:
    ca = Ca(agents_=[JOINED], certificates=[certificate(42, "/service/web", "e1")])
    status, shown, told = typed(monkeypatch, ca, *words.split())
    assert (status, ca.acts) == (0, [("node-1", how)])
    assert f"agent node-1 {said}" in shown
    assert ("by its platform" in told) == (how.action != "ban")


def test_nothing_is_ended_without_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unusable, match="add --yes"):
        typed(monkeypatch, Ca(agents_=[JOINED]), "ban", "node-1")
