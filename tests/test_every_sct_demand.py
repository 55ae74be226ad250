"""No way of judging a peer passes ``--require-sct`` by: whoever says what is believed says what is demanded."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

from twisted_mesh.identity.agent import Wanted
from twisted_mesh.stdlib.ca_connection import CaConnection
from twisted_mesh.trust.trust import Trust

PACKAGE = Path(__file__).parent.parent / "twisted_mesh"
#: What becomes a judge of peers, or of the CA: whoever calls it says whether receipts are demanded.
TOLD = {
    "CaConnection",
    "JoinedIdentity",
    "Trust",
    "Wanted",
    "_only_the_ca",
    "ca_client",
    "ca_security",
    "pinned_security",
}
#: Who calls it and says nothing of that, and why.
EXEMPT = {
    ("ca/first_installation.py", "Wanted"): "another thing of that name",
    ("ca/rotation/certification.py", "Wanted"): "another thing of that name",
    ("ca/workload_issuer.py", "Trust"): "what workloads are told: they judge by themselves",
    ("identity/blocking.py", "ca_security"): "mesh-ctl's, which has no such option",
    ("identity/blocking.py", "pinned_security"): "mesh-ctl's, which has no such option",
    (
        "stdlib/source.py",
        "Trust",
    ): "what was kept of an earlier life is held against it, and no peer",
    ("stdlib/ca_connection.py", "Trust"): "of nobody, before it is said who is believed",
    ("taps/agent.py", "ca_client"): "another thing of that name",
    ("taps/identity_options.py", "ca_client"): "another thing of that name",
}
#: Who asks the rules of chains themselves, past what is demanded besides, and why.
RULES = {
    "trust/trust.py": "which adds what is demanded",
    "trust/judge.py": "our own chain, as others would see it",
    "identity/saved_svid.py": "our own chain, of an earlier life",
    "cli/inspect_verify.py": "a chain in files, for people",
}
JUDGING = ("Judge", "PinnedJudge", "RecordJudge")
#: Who makes a judge.
JUDGES = {
    "identity/agent.py",
    "identity/bootstrap.py",
    "stdlib/context.py",
    "stdlib/source.py",
    "federation/fetcher.py",
    "taps/ca_endpoint.py",
    "tls/rehearsal.py",
    "testing/memory_ca.py",
}


@cache
def texts() -> tuple[tuple[Path, str], ...]:
    return tuple((path, path.read_text()) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def calls() -> tuple[tuple[str, ast.Call, str], ...]:
    return tuple(_calls())


def _calls() -> Iterator[tuple[str, ast.Call, str]]:
    called = re.compile(rf"\b({'|'.join((*TOLD, *JUDGING))})\(")
    for path, text in texts():
        if not called.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                yield str(path.relative_to(PACKAGE)), node, name


def says_so(node: ast.Call) -> bool:
    words = [*(keyword.value for keyword in node.keywords if keyword.arg), *node.args]
    names = {keyword.arg or "" for keyword in node.keywords} | {
        getattr(part, "attr", getattr(part, "id", getattr(part, "value", "")))
        for word in words
        for part in ast.walk(word)
        if isinstance(part, ast.Attribute | ast.Name | ast.Constant)
    }
    return bool(names & {"demand", "_demand", "sct-demand"})


def silent() -> set[tuple[str, str]]:
    return {(path, name) for path, node, name in calls() if name in TOLD and not says_so(node)}


def test_whoever_says_what_is_believed_says_what_is_demanded() -> None:
    assert silent() == set(EXEMPT)


def test_nobody_asks_the_rules_of_chains_past_it() -> None:
    """``judge`` of pki.svid.chain knows of no receipts: only what is believed adds them."""
    asking = set()
    for path, text in texts():
        if "pki.svid.chain" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            is_of_chains = isinstance(node, ast.ImportFrom) and node.module == "pki.svid.chain"
            if is_of_chains and any(alias.name == "judge" for alias in node.names):
                asking.add(str(path.relative_to(PACKAGE)))
    assert asking == set(RULES)


def test_every_judge_is_known() -> None:
    made = {path for path, _, name in calls() if name in JUDGING}
    assert made == JUDGES


def test_what_is_told_of_can_be_told_of() -> None:
    """A renamed field would have the tests above look for nothing."""
    for kind in (Trust, Wanted, CaConnection):
        assert "demand" in {found.name for found in attrs.fields(kind)}
    called = {name for _, _, name in calls()}
    assert called >= TOLD
