"""``entry``: what is asked of the CA, what is shown, and what is said before an entry is deleted."""

import asyncio
import json
import shlex
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from pki.policy.entry import EntryMembers, read_entry
from tests.authorities import MESH
from tests.twisted_mesh.cli.ctl.registered import DEFAULT, Ca, certificate, registration, token_row
from twisted_mesh.api.agent_messages import AgentRow
from twisted_mesh.api.messages import NewRegistration
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import entry as command_line
from twisted_mesh.cli.ctl import entry_actions, session
from twisted_mesh.cli.program import Unusable

API = registration(
    "0011223344556677", "/service/api", "systemd:unit:api.service", "unix:uid:1000",
    dns_names=["api.example"], ip_addresses=["192.0.2.1"], ttl="30m", max_ttl="1h",
    keys=["ec-p256"], comment="the API",
)  # fmt: skip
EXPOSED = registration("default", "/service/**", "unix:uid:1000", source="default", honoured=False)
FILED = registration("file.web", "/user/{unix.user}", "unix:gid:100", source="file", created_at=None)  # fmt: skip


def run(work: Any, ca: Ca) -> int:
    status: int = asyncio.run(work(ca))
    return status


def typed(monkeypatch: pytest.MonkeyPatch, ca: Ca, *words: str) -> int:
    """The exit status of a command line whose work is done with ``ca``."""
    monkeypatch.setattr(session, "administer", lambda reach, work: run(work, ca))
    done = CliRunner().invoke(command_line.command, words, standalone_mode=False)
    assert done.exception is None, done.exception
    status: int = done.return_value
    return status


def test_the_options_are_asked_for_as_the_api_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Ca()
    words = (
        "create --selector unix:uid:1000 --selector systemd:unit:api.service "
        "--spiffe-id spiffe://{trust_domain}/service/api --dns api.example --ip ::1 --ttl 30m --max-ttl 1h "
        "--key ec-p256 --key ec-p384 --federates-with b.example --federates-with c.example --comment C --reason R"
    )
    assert typed(monkeypatch, ca, *words.split()) == 0
    assert ca.acts == [
        NewRegistration(
            selectors=["unix:uid:1000", "systemd:unit:api.service"],
            spiffe_id="spiffe://{trust_domain}/service/api",
            dns_names=["api.example"],
            ip_addresses=["::1"],
            ttl="30m",
            max_ttl="1h",
            keys=["ec-p256", "ec-p384"],
            comment="C",
            federates_with=["b.example", "c.example"],
            reason="R",
        )
    ]


@pytest.mark.parametrize("domain", ["mesh.local", "other.example", "{trust_domain}"])
def test_whose_trust_domain_it_is_is_for_the_ca_to_say(domain: str) -> None:
    new = entry_actions.understood(
        "mesh.local",
        {
            "selectors": ("unix:uid:1",),
            "spiffe_id": f"spiffe://{domain}/service/{{unix.user}}",
            "dns_names": (),
            "ttl": None,
            "comment": "",
        },
    )
    assert new.spiffe_id == f"spiffe://{domain}/service/{{unix.user}}"


def test_every_option_that_cannot_be_used_is_told_at_once() -> None:
    with pytest.raises(Unusable) as refusal:
        entry_actions.understood(
            "mesh.local",
            {
                "selectors": ["uid:1"],
                "spiffe_id": "spiffe://mesh.local/mesh/ca",
                "dns_names": ["*.example"],
                "ip_addresses": ["x"],
                "ttl": "0s",
                "max_ttl": "x",
                "keys": ["x"],
                "comment": "\n",
                "reason": "",
            },
        )
    for option in (
        "--selector",
        "--spiffe-id",
        "--dns",
        "--ip",
        "--ttl",
        "--max-ttl",
        "--key",
        "--comment",
    ):
        assert f"{option}: " in refusal.value.message


def test_entries_are_listed_and_those_that_do_not_count_are_marked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(entry_actions.Listing(False), Ca(entries=[EXPOSED, API, FILED])) == 0
    heading, exposed, api, filed = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ENTRY", "SELECTORS", "BUYS", "KEPT", "IN", "COMMENT"]
    assert "not honoured: the CA listens beyond loopback" in exposed
    assert "systemd:unit:api.service, unix:uid:1000" in api
    assert "not honoured" not in api + filed
    assert filed.split() == ["file.web", "unix:gid:100", FILED.spiffe_id, "file", "-"]
    run(entry_actions.Listing(True), Ca(entries=[EXPOSED]))
    assert json.loads(capsys.readouterr().out)[0]["honoured"] is False


def test_without_entries_it_says_what_that_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(entry_actions.Listing(False), Ca()) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        "mesh-ctl: there are no entries: nobody gets a certificate\n",
    )


def test_all_of_an_entry_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca(entries=[API, EXPOSED])
    assert run(entry_actions.Showing(API.id, False), ca) == 0
    shown = capsys.readouterr().out
    for words in (
        API.id, *API.selectors, API.spiffe_id, "api.example", "192.0.2.1", "30m", "1h", "ec-p256",
        "the API", "record", "2026-11-23T10:00:00Z",
    ):  # fmt: skip
        assert words in shown
    assert "honoured" not in shown
    assert run(entry_actions.Showing("default", False), ca) == 0
    assert "no: the CA listens beyond loopback" in capsys.readouterr().out
    with pytest.raises(CaRefused):
        run(entry_actions.Showing("gone", False), ca)


def test_an_alias_buys_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    alias = msgspec.structs.replace(API, spiffe_id="spiffe://mesh.local/mesh/alias/prod-nodes")
    for row, buys in ((API, True), (alias, False)):
        entry_actions.put_entry(row, as_json=False)
        shown = capsys.readouterr().out
        assert row.spiffe_id in shown
        assert ("buys" in shown, "stands for agents as" in shown) == (buys, not buys)


BOUGHT = [
    certificate(1, "/service/api", API.id),
    certificate(2, "/service/api", "default"),
    certificate(3, "/service/api", API.id),
    certificate(4, "/service/api", None),
]
TOKENS = [
    token_row("0123456789ab", API.id),
    token_row("0123456789ac", API.id, "spent"),
    token_row("0123456789ad", "default"),
]


def test_before_an_entry_is_deleted_it_is_said_what_depends_on_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        entry_actions, "confirmed", lambda question, yes: asked.append(question) or yes
    )
    ca = Ca(entries=[API], certificates=BOUGHT, rows=TOKENS)
    assert run(entry_actions.Deleting(API.id, "", False, False), ca) == 1
    assert asked == [
        f"Delete the entry {API.id}, by which systemd:unit:api.service, unix:uid:1000 may have "
        f"{API.spiffe_id} (2 valid certificates bought by it, 1 live token)?"
    ]
    assert not ca.acts
    assert capsys.readouterr().err == "mesh-ctl: nothing was deleted\n"


def test_what_a_deleted_entry_bought_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca(entries=[API], certificates=BOUGHT, rows=TOKENS)
    assert run(entry_actions.Deleting(API.id, "sold", True, False), ca) == 0
    assert ca.acts == [("delete", API.id, "sold")]
    said = capsys.readouterr()
    assert said.out == (
        f"entry {API.id} deleted at 2026-11-23T10:00:00Z; 2 valid certificates bought by it, 1 live token\n"
    )
    assert "not renewed: mesh-ctl cert revoke ends them now" in said.err
    assert run(entry_actions.Deleting(API.id, "", True, True), Ca(entries=[API])) == 0
    assert json.loads(capsys.readouterr().out) == {
        "id": API.id,
        "deleted_at": "2026-11-23T10:00:00Z",
        "certificates": 0,
        "tokens": 0,
    }


def test_an_entry_of_the_file_is_refused_without_a_question() -> None:
    with pytest.raises(CaRefused, match="entry-in-file"):
        run(entry_actions.Deleting("file.web", "", False, False), Ca(entries=[FILED]))


@pytest.mark.parametrize(
    ("buys", "filter_"),
    [
        ("/service/api", "/service/api"),
        ("/service/**", "/service/**"),
        ("/service/*/x", "/service/**"),
        ("/user/u-{unix.user}/x", "/user/**"),
        ("/a/b/{token}", "/a/b/**"),
    ],
)
def test_certificates_of_an_entry_are_looked_for_where_they_can_be(buys: str, filter_: str) -> None:
    ca = Ca(entries=[registration("e", buys, "token:e")])
    run(entry_actions.Deleting("e", "", True, False), ca)
    assert ca.asked == [{"status": "valid", "spiffe_id": f"spiffe://mesh.local{filter_}"}]


def test_a_command_that_is_shown_makes_the_same_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = read_entry(
        "",
        MESH,
        EntryMembers(
            selectors=["unix:user:DOMAIN\\o'hara;$(x)", "unix:uid:7"],
            spiffe_id="spiffe://mesh.local/service/api",
            dns_names=["a.example", "b.example"],
            ip_addresses=["::1"],
        ),
    )
    program, group, *words = shlex.split(shlex.join(entry_actions.creating_command(wanted)))
    assert (program, group) == ("mesh-ctl", "entry")
    ca = Ca()
    assert typed(monkeypatch, ca, *words) == 0
    (made,) = ca.acts
    assert set(made.selectors) == set(map(str, wanted.selectors))
    assert (made.spiffe_id, made.dns_names, made.ip_addresses) == (
        str(wanted.spiffe_id),
        list(wanted.dns_names),
        list(map(str, wanted.ip_addresses)),
    )


def test_the_default_entry_is_an_entry_like_others() -> None:
    assert entry_actions.entry_of(DEFAULT, MESH).id == "default"


NODE = f"spiffe://{MESH}/mesh/agent/node-1"
CREATE = ("create", "--selector", "unix:uid:7", "--spiffe-id", f"spiffe://{MESH}/service/api")


def test_an_entry_for_an_agent_is_asked_for_with_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca = Ca()
    assert typed(monkeypatch, ca, *CREATE, "--parent", NODE, "--hint", "main") == 0
    (asked,) = ca.acts
    assert (asked.parent, asked.hint) == (NODE, "main")
    with pytest.raises(AssertionError, match="through one agent"):
        typed(monkeypatch, ca, *CREATE, "--parent", NODE, "--parent", f"{NODE}2")
    for parent in (f"spiffe://{MESH}/service/x", "spiffe://other.example/mesh/agent/a", "node-1"):
        with pytest.raises(AssertionError, match="--parent"):
            typed(monkeypatch, ca, *CREATE, "--parent", parent)


def test_a_trust_domain_that_is_not_federated_with_yet_is_told_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = NewRegistration(
        selectors=["unix:uid:7"],
        spiffe_id=f"spiffe://{MESH}/service/x",
        federates_with=["b.example"],
    )
    assert run(entry_actions.Creating(new, False), Ca()) == 0
    told = capsys.readouterr()
    assert "federates with  b.example" in told.out
    assert "mesh-ctl federation add b.example" in told.err


def test_a_parent_that_nobody_knows_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    for agents, said in (
        ([], "there is no agent node-1 yet"),
        ([AgentRow("node-1", NODE, "banned", "", 0)], "is banned"),
        ([AgentRow("node-1", NODE, "joined", "", 0)], ""),
    ):
        new = NewRegistration(selectors=["unix:uid:7"], spiffe_id=f"{NODE}", parent=NODE)
        assert run(entry_actions.Creating(new, False), Ca(agents_=agents)) == 0
        assert said in capsys.readouterr().err


def test_who_an_entry_counts_through_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    own = registration("a1", "/mesh/agent/node-1", "token:a1", agent="node-1")
    ban = registration("b1", "/mesh/agent/x", "token:b1", agent="x", banned=True, honoured=False)
    child = registration("c1", "/service/web", "unix:uid:7", parent=NODE, hint="main")
    ca = Ca([own, ban, child])
    run(entry_actions.Listing(False), ca)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith("THROUGH")
    assert "record, by mesh-ctl agent" in rows[0]
    assert "record, a ban by mesh-ctl agent" in rows[1]
    assert rows[2].endswith("node-1")
    for name, said in (("b1", "a ban"), ("c1", f"through    {NODE}")):
        run(entry_actions.Showing(name, False), ca)
        assert said in capsys.readouterr().out
