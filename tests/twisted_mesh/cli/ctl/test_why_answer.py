"""``why``: who is let in and who is not, what is missing, and that what is suggested helps."""

import asyncio
import io
import json
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pki.errors import Malformed
from pki.issuing.csr import build_csr
from pki.keys import key_id
from pki.policy.entry import EntryMembers, read_entry
from pki.policy.join_token import JoinToken
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from tests.authorities import MESH, OTHER, key
from tests.authorities import mesh as authorities
from tests.twisted_mesh.cli.ctl.registered import DEFAULT, Ca, certificate, registration, token_row
from twisted_mesh.api.agent_messages import AgentRow
from twisted_mesh.api.policy_messages import PolicyStatus
from twisted_mesh.attest.container_cgroup import Container
from twisted_mesh.cli.ctl import why_caller
from twisted_mesh.cli.ctl.why_answer import Explaining
from twisted_mesh.cli.ctl.why_caller import Asked, Seen
from twisted_mesh.cli.program import Unusable

WEB = "spiffe://mesh.local/service/web"
TOKEN = JoinToken.generate()
OF_TOKEN = registration("aabbccddeeff0011", "/service/web", "token:aabbccddeeff0011")


def proven(*selectors: str) -> Seen:
    return Seen(frozenset(map(Selector.parse, selectors)), "as given")


def asking(spiffe_id: str = WEB, *dns_names: str, ttl: str | None = None) -> Asked:
    return why_caller.made_up_request(spiffe_id, dns_names, (), ttl)


def with_token(text: str = TOKEN.text) -> Asked:
    return Asked(build_csr(key(), SpiffeId.parse(WEB)), WEB, None, text)


def why(
    capsys: pytest.CaptureFixture[str],
    ca: Ca,
    seen: Seen,
    asked: Asked | None,
    *,
    all_: bool = False,
) -> Any:
    """The answer as a program gets it; people are told too, and nobody of a token."""
    told = []
    for as_json in (True, False):
        work: Any = Explaining(seen, asked, str(MESH), all_, as_json)
        status = asyncio.run(work(ca))
        shown = capsys.readouterr()
        assert TOKEN.text[4:] not in shown.out + shown.err
        told.append((status, shown.out))
    (status, answer), (again, text) = told
    assert status == again
    found = json.loads(answer)
    assert status == (0 if found["let_in"] else 1)
    found["text"] = text
    return found


def test_whom_an_entry_lets_in_is_told_which(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca([DEFAULT, OF_TOKEN])
    found = why(capsys, ca, proven("unix:uid:1000", "unix:gid:1000"), asking())
    assert found["let_in"] and found["needs_entry"] is False
    assert [entry["id"] for entry in found["entries"]] == ["default"]
    assert found["command"] is None
    assert "seen   unix:gid:1000, unix:uid:1000 (as given)\n" in found["text"]
    assert f"asked  {WEB}\n" in found["text"]
    assert "ok: let in by the entry default\n" in found["text"]


@pytest.mark.parametrize("state", ["in-force", "withdrawn", "none"])
def test_whom_the_policy_is_asked_about_is_told_how_to_ask_its_rules(
    capsys: pytest.CaptureFixture[str], state: str
) -> None:
    ca = Ca([registration("mine", "/service/web", "unix:uid:77")])
    ca.policy_ = PolicyStatus(state, "/etc/my rules", "sha256:77", None, [], "", None)
    found = why(capsys, ca, proven("unix:uid:77", "unix:gid:7"), asking())
    assert found["policy"] == ("sha256:77" if state == "in-force" else None)
    asyncio.run(Explaining(proven("unix:uid:77"), asking(), str(MESH), False, False)(ca))  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert ("policy" in said) == (state == "in-force")
    if said:
        words = shlex.split(said.partition("say: ")[2])
        assert words[:4] == ["mesh-ctl", "policy", "explain", "/etc/my rules"]
        assert words[4:] == [
            *("--set", "selectors=unix:uid:77"),
            *("--set", "entry.selectors=unix:uid:77"),
            *("--set", f"request.spiffe_id={WEB}"),
            *("--set", "request.path=/service/web"),
        ]
    # Whom no entry lets in, no policy lets in.
    asyncio.run(Explaining(proven("unix:uid:78"), asking(), str(MESH), False, False)(ca))  # type: ignore[arg-type]
    assert "policy" not in capsys.readouterr().err


def test_what_is_missing_is_told_by_the_nearest_entry_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        registration("far", "/job/x", "unix:uid:7", "token:x"),
        registration("near", "/service/web", "unix:uid:1001", "systemd:unit:web.service"),
        DEFAULT,
    ]
    found = why(capsys, Ca(rows), proven("unix:uid:1001", "unix:user:web"), asking())
    assert not found["let_in"]
    assert [entry["id"] for entry in found["entries"]] == ["near", "default", "far"]
    assert [entry["missing"] for entry in found["entries"][:2]] == [
        ["systemd:unit:web.service"],
        ["unix:uid:1000"],
    ]
    assert found["entries"][2]["in_the_way"][0]["rule"] == "ids-granted-only"
    text = found["text"]
    assert "fail: no registration entry lets it in\n" in text
    assert (
        "near buys spiffe://mesh.local/service/web\n  missing: systemd:unit:web.service\n" in text
    )
    assert text.endswith(
        f"This would let it in:\n\n  mesh-ctl entry create --selector unix:user:web --spiffe-id {WEB}\n"
    )


def test_only_the_nearest_five_are_shown_unless_all_are_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ca = Ca([registration(f"e{n}", "/service/web", f"unix:uid:{n}") for n in range(1, 9)])
    seen = proven("unix:uid:77")
    assert len(why(capsys, ca, seen, asking())["entries"]) == 5
    assert len(why(capsys, ca, seen, asking(), all_=True)["entries"]) == 8
    work: Any = Explaining(seen, asking(), str(MESH), False, False)
    asyncio.run(work(ca))
    assert capsys.readouterr().err == "mesh-ctl: 3 entries more, farther away: --all shows all\n"


def test_names_beyond_an_entry_are_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    found = why(capsys, Ca([DEFAULT]), proven("unix:uid:1000"), asking(WEB, "a.example"))
    # Whoever is the CA's own user needs no entry as long as the default one counts.
    assert found["let_in"]
    assert found["entries"] == []
    assert "needs no entry as long as default counts" in found["text"]
    mine = registration("m", "/service/**", "unix:uid:1000")
    found = why(capsys, Ca([mine]), proven("unix:uid:1000"), asking(WEB, "a.example"))
    assert found["entries"][0]["in_the_way"] == [
        {"rule": "names-granted-only", "detail": "it does not grant the names a.example"}
    ]
    assert found["command"].endswith(f"--selector unix:uid:1000 --spiffe-id {WEB} --dns a.example")


@pytest.mark.parametrize("uid", [0, 1000])
def test_administrators_of_the_machine_need_an_entry_once_the_default_one_is_gone(
    uid: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, asked = proven(f"unix:uid:{uid}"), asking("spiffe://mesh.local/job/x")
    exposed = registration("default", "/job/*", "unix:uid:1000", source="default", honoured=False)
    assert why(capsys, Ca([DEFAULT]), seen, asked)["let_in"]
    assert not why(capsys, Ca([exposed]), seen, asked)["let_in"]
    assert not why(capsys, Ca([]), seen, asked)["let_in"]
    found = why(capsys, Ca([exposed]), seen, asked)["entries"][0]["in_the_way"]
    assert [reason["rule"] for reason in found] == ["not-honoured"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (asking("spiffe://mesh.local/mesh/ca"), "reserved-id"),
        (asking("spiffe://mesh.local/mesh/x/y"), "reserved-id"),
        (asking("spiffe://other.example/service/web"), "wrong-trust-domain"),
        (asking("spiffe://mesh.local"), "not-an-svid"),
    ],
)
def test_the_cas_other_rules_are_told_and_no_entry_is_suggested(
    asked: Asked, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = why(capsys, Ca([DEFAULT]), proven("unix:uid:1000"), asked)
    assert not found["let_in"]
    assert [problem["code"] for problem in found["problems"]] == [code]
    assert found["command"] is None
    assert f"fail: {code}: " in found["text"]


def test_a_lifetime_over_the_cas_own_most_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca([DEFAULT], max_ttl="1d")
    found = why(capsys, ca, proven("unix:uid:1000"), asking(ttl="2d"))
    assert not found["let_in"]
    assert [problem["code"] for problem in found["problems"]] == ["ttl-out-of-range"]
    assert found["command"] is None, "there is an entry already"
    assert why(capsys, ca, proven("unix:uid:1000"), asking(ttl="1d"))["let_in"]


def test_the_trust_domain_is_the_cas_own(capsys: pytest.CaptureFixture[str]) -> None:
    root = authorities(OTHER).root.certificate
    asked = asking("spiffe://other.example/service/web")
    row = replace(DEFAULT, id="e", spiffe_id="spiffe://other.example/service/*")
    assert why(capsys, Ca([row], trusted=[root]), proven("unix:uid:1000"), asked)["let_in"]


def test_without_an_id_it_is_told_which_entries_the_caller_meets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [registration("u", "/user/{unix.user}", "unix:uid:7"), registration("s", "/s", "unix:uid:7")]  # fmt: skip
    found = why(capsys, Ca(rows), proven("unix:uid:7"), None)
    assert found["let_in"] and found["spiffe_id"] is None
    assert [entry["id"] for entry in found["entries"]] == ["s"]
    assert "asked  whatever an entry buys\n" in found["text"]
    found = why(capsys, Ca(rows[:1]), proven("unix:uid:7"), None)
    assert not found["let_in"] and found["command"] is None
    assert "no unix:user selector was seen" in found["entries"][0]["in_the_way"][0]["detail"]


def test_who_has_a_certificate_renews_it_under_the_entry_that_bought_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ca = Ca([OF_TOKEN], certificates=[certificate(1, "/service/web", OF_TOKEN.id)])
    holder = proven(f"x509:{WEB}")
    assert why(capsys, ca, holder, asking())["let_in"]
    assert not why(capsys, ca, holder, asking("spiffe://mesh.local/service/x"))["let_in"]
    ca.entries.clear()
    found = why(capsys, ca, holder, asking())
    assert found["command"] == f"mesh-ctl entry create --selector x509:{WEB} --spiffe-id {WEB}"


# Tokens


def test_a_live_token_shows_the_selectors_of_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca([DEFAULT, OF_TOKEN], [token_row(TOKEN.id, OF_TOKEN.id)])
    found = why(capsys, ca, Seen(frozenset(), "of the token"), with_token())
    assert found["let_in"]
    assert found["selectors"] == ["token:aabbccddeeff0011"]
    assert found["token"] == {"id": TOKEN.id, "status": "live"}
    assert f"token  {TOKEN.id} (live)\n" in found["text"]


def test_with_a_token_its_own_entry_counts_and_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = registration("aabbccddeeff0011", "/service/x", "token:aabbccddeeff0011")
    ca = Ca([DEFAULT, elsewhere], [token_row(TOKEN.id, elsewhere.id)])
    found = why(capsys, ca, proven("unix:uid:1000"), with_token())
    assert not found["let_in"]
    assert [entry["id"] for entry in found["entries"]] == [elsewhere.id]
    assert found["command"] == f"mesh-ctl token create --spiffe-id {WEB}"


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (None, "no-proof", "the CA does not know the token"),
        (
            token_row(TOKEN.id, OF_TOKEN.id, "revoked"),
            "no-proof",
            "was revoked at 2026-11-23T10:00:00Z",
        ),
        (
            token_row(TOKEN.id, OF_TOKEN.id, "expired"),
            "no-proof",
            "expired at 2026-11-23T10:00:00Z",
        ),
        (
            token_row(TOKEN.id, OF_TOKEN.id, "spent", serial="0a0b"),
            "conflict",
            "on the certificate 0A:0B",
        ),
        (
            token_row(TOKEN.id, OF_TOKEN.id, key="ab" * 32),
            "not-authorized",
            "and the request has another",
        ),
    ],
)
def test_a_token_that_is_no_good_is_told_by_its_id(
    row: Any, code: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = Ca([OF_TOKEN], [row] if row else [])
    found = why(capsys, ca, Seen(frozenset(), "of the token"), with_token())
    assert not found["let_in"]
    (problem,) = found["problems"]
    assert problem["code"] == code
    assert words in problem["detail"]
    assert found["token"]["id"] == TOKEN.id
    assert found["command"].startswith(f"mesh-ctl token create --spiffe-id {WEB}")


def test_a_token_for_this_key_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    row = token_row(TOKEN.id, OF_TOKEN.id, key=key_id(key().public_key))
    found = why(capsys, Ca([OF_TOKEN], [row]), Seen(frozenset(), "of the token"), with_token())
    assert found["let_in"]


@pytest.mark.parametrize(
    "text",
    [TOKEN.text[:-1], TOKEN.text + "a", f" {TOKEN.text}", ""],
    ids=["cut", "grown", "spaced", "empty"],
)
def test_a_damaged_token_is_told_without_its_text(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = why(capsys, Ca([OF_TOKEN]), Seen(frozenset(), "of the token"), with_token(text))
    assert found["token"] == {"id": None, "status": "damaged"}
    assert "this is no whole join token" in found["problems"][0]["detail"]


def test_who_shows_nothing_is_advised_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    found = why(capsys, Ca([DEFAULT]), Seen(frozenset(), "as given"), asking(WEB, "a.example"))
    assert found["command"] == f"mesh-ctl token create --spiffe-id {WEB} --dns a.example"
    assert "seen   nothing (as given)" in found["text"]


# What is suggested


@given(
    st.sets(
        st.sampled_from(["unix:uid:7", "unix:user:o'hara", "unix:gid:7", "systemd:unit:a.service"]),
        min_size=1,
    ),
    st.lists(st.sampled_from(["a.example", "localhost"]), unique=True),
)
def test_the_suggested_entry_lets_the_caller_in(seen: set[str], names: list[str]) -> None:
    work: Any = Explaining(proven(*seen), asking(WEB, *names), str(MESH), False, True)

    def answer(ca: Ca) -> Any:
        return asyncio.run(work._answer(ca))

    before = answer(Ca())
    assert not before.lets_in
    options: dict[str, list[str]] = {}
    words = shlex.split(shlex.join(before.command))
    for option, value in zip(words[3::2], words[4::2], strict=True):
        options.setdefault(option, []).append(value)
    made = read_entry(
        "new",
        MESH,
        EntryMembers(
            selectors=options["--selector"],
            spiffe_id=options["--spiffe-id"][0],
            dns_names=options.get("--dns", ()),
        ),
    )
    row = registration("new", "/service/web", *map(str, made.selectors), dns_names=list(made.dns_names))  # fmt: skip
    assert answer(Ca([row])).lets_in


# Who calls, and what they ask for


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The PIDs that were looked at; 999 is nobody's."""
    looked_at: list[int] = []

    def selectors_of_process(pid: int) -> frozenset[Selector]:
        looked_at.append(pid)
        if pid == 999:
            raise Malformed("there is no process 999")
        return frozenset({Selector("unix:uid", "1000")})

    module = ModuleType("twisted_mesh.attest.process")
    module.selectors_of_process = selectors_of_process  # type: ignore[attr-defined]
    module.container_of_process = {8: Container("0" * 64, "u")}.get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twisted_mesh.attest.process", module)
    return looked_at


def test_without_a_word_it_is_about_the_process_itself(processes: list[int]) -> None:
    found = why_caller.seen(None, (), has_token=False, is_near=True)
    assert processes == [os.getpid()]
    assert found == Seen(frozenset({Selector("unix:uid", "1000")}), f"of process {os.getpid()}")


def test_of_one_in_a_container_it_says_what_is_not_seen_from_here(processes: list[int]) -> None:
    found = why_caller.seen(8, (), has_token=False, is_near=True)
    assert found.of.startswith("of process 8 in container 000000000000 of pod u, whose runtime")


def test_a_process_is_looked_at_by_its_pid(processes: list[int]) -> None:
    found = why_caller.seen(7, ["token:x"], has_token=True, is_near=True)
    assert processes == [7]
    assert set(map(str, found.selectors)) == {"unix:uid:1000", "token:x"}
    with pytest.raises(Unusable, match="--pid 999: there is no process 999"):
        why_caller.seen(999, (), has_token=False, is_near=True)


def test_what_is_given_needs_no_process(processes: list[int]) -> None:
    assert why_caller.seen(None, ["unix:uid:7"], has_token=False, is_near=True) == Seen(
        frozenset({Selector("unix:uid", "7")}), "as given"
    )
    assert why_caller.seen(None, (), has_token=True, is_near=False) == Seen(
        frozenset(), "of the token"
    )
    assert not processes


def saved(tmp_path: Path, body: object) -> str:
    path = tmp_path / "sign.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(path)


def test_a_saved_request_is_read_as_the_ca_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csr = build_csr(key(), SpiffeId.parse(WEB), ["a.example"]).decode()
    body = {"csr": csr, "requested_id": WEB, "ttl": "30m", "token": TOKEN.text, "more": 1}
    asked = why_caller.saved_request(saved(tmp_path, body))
    assert TOKEN.text[4:] not in repr(asked)
    ca = Ca([OF_TOKEN], [token_row(TOKEN.id, OF_TOKEN.id)])
    found = why(capsys, ca, Seen(frozenset(), "of the token"), asked)
    assert f"asked  {WEB} with a.example for 30m\n" in found["text"]
    assert found["entries"][0]["in_the_way"][0]["rule"] == "names-granted-only"
    assert found["command"] == f"mesh-ctl token create --spiffe-id {WEB} --dns a.example"


def test_a_request_can_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"csr": build_csr(key(), SpiffeId.parse(WEB)).decode(), "requested_id": WEB})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body.encode())))
    assert why_caller.saved_request("-").requested_id == WEB


def test_a_csr_that_breaks_rules_is_told_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    csr = build_csr(key(), SpiffeId.parse("spiffe://mesh.local/service/other"))
    found = why(capsys, Ca([DEFAULT]), proven("unix:uid:1000"), Asked(csr, WEB, None))
    assert [problem["code"] for problem in found["problems"]] == ["wrong-uri"]
    nameless = why(capsys, Ca([DEFAULT]), proven("unix:uid:1000"), Asked(csr, "?", None))
    assert "not-a-spiffe-id" in [problem["code"] for problem in nameless["problems"]]
    assert "asked  nothing that can be read\n" in nameless["text"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        {"csr": "x"},
        {"requested_id": WEB},
        {"csr": "x", "requested_id": WEB},
        {"csr": "\ud800", "requested_id": WEB},
        {"csr": 1, "requested_id": WEB, "token": TOKEN.text},
        {"csr": build_csr(key(), SpiffeId.parse(WEB)).decode(), "requested_id": WEB, "ttl": "1"},
        '{"csr": "a", "csr": "b", "requested_id": "c"}',
        " " * 70_000,
        "[" * 60_000,
    ],
)
def test_a_file_that_is_no_request_is_one_sentence(body: object, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as refusal:
        why_caller.saved_request(saved(tmp_path, body))
    assert refusal.value.message.startswith(f"--request {tmp_path / 'sign.json'}: ")
    assert refusal.value.message.isprintable()
    assert TOKEN.text[4:] not in refusal.value.message


NODE = f"spiffe://{MESH}/mesh/agent/node-1"
THROUGH = registration("e1", "/service/web", "unix:uid:7", parent=NODE)


def through(ca: Ca, seen: Seen, asked: Asked | None, capsys: pytest.CaptureFixture[str]) -> Any:
    work: Any = Explaining(seen, asked, str(MESH), False, True, "node-1")
    asyncio.run(work(ca))
    return json.loads(capsys.readouterr().out)


def test_an_entry_with_a_parent_lets_nobody_in_at_the_ca(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = why(capsys, Ca([THROUGH]), proven("unix:uid:7"), asking())
    assert not found["let_in"]
    (reason,) = found["entries"][0]["in_the_way"]
    assert reason["rule"] == "own-entries-only"
    assert "mesh-ctl why --agent node-1" in reason["detail"]


def test_it_lets_in_a_workload_of_its_agent(capsys: pytest.CaptureFixture[str]) -> None:
    node = AgentRow("node-1", NODE, "joined", "", 1)
    ca = Ca([THROUGH, DEFAULT], agents_=[node])
    assert through(ca, proven("unix:uid:7"), asking(), capsys)["let_in"]
    found = through(ca, proven("unix:uid:1000"), asking(), capsys)
    assert not found["let_in"]  # the default entry is not the agent's
    assert [(e["id"], e["missing"]) for e in found["entries"]] == [("e1", ["unix:uid:7"])]
    found = through(ca, proven("unix:uid:8"), asking(f"spiffe://{MESH}/service/b"), capsys)
    assert f"--parent {NODE}" in found["command"]


def test_no_entry_of_a_banned_or_unknown_agent_lets_in(capsys: pytest.CaptureFixture[str]) -> None:
    banned = AgentRow("node-1", NODE, "banned", "", 1)
    for ca, word in ((Ca([THROUGH], agents_=[banned]), "unban"), (Ca([THROUGH]), "token create")):
        found = through(ca, proven("unix:uid:7"), asking(), capsys)
        assert not found["let_in"]
        assert f"mesh-ctl agent {word} node-1" in found["problems"][0]["detail"]


def test_what_buys_and_bans_agents_is_nothing_for_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = registration("a1", "/mesh/agent/node-1", "token:a1", agent="node-1")
    ban = registration("b1", "/mesh/agent/node-1", "token:b1", agent="node-1", banned=True)
    found = why(capsys, Ca([own, ban, DEFAULT]), proven("unix:uid:7"), asking())
    assert [entry["id"] for entry in found["entries"]] == ["default"]
