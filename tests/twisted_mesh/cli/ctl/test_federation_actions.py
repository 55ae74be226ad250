"""``federation``: what is asked of the CA, and what is shown of it."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from click.testing import CliRunner
from msgspec.structs import replace

from tests.authorities import OTHER, mesh
from twisted_mesh.api.federation_messages import (
    FederationEnded,
    FederationRow,
    FederationRows,
    NewFederation,
    RefreshFederation,
)
from twisted_mesh.cli.ctl import federation as command_line
from twisted_mesh.cli.ctl import session
from twisted_mesh.cli.program import Unusable
from twisted_mesh.state.directory import StateError

TIME = "2026-11-23T10:00:00Z"
URL = "https://other.example/bundle"
ROW = FederationRow(
    "other.example", URL, "https_web", None, None, TIME,
    believed=True, sequence=5, fetched_at=TIME, age="2m 5s", next_at=TIME, refresh_hint=300,
    failures=0, failed_since=None, problems=[], passed_over=[], roots=["sha256:ab"],
    jwt_keys=["k1"], entries=["e1"],
)  # fmt: skip


@define
class Ca:
    """Stands for :class:`Administration`."""

    row: FederationRow = ROW
    unreadable: dict[str, str] = field(factory=dict)
    acts: list[Any] = field(factory=list)

    async def federations(self) -> FederationRows:
        return FederationRows([self.row], self.unreadable)

    async def federation(self, trust_domain: str) -> FederationRow:
        self.acts.append(trust_domain)
        return self.row

    async def federate(self, new: NewFederation) -> FederationRow:
        self.acts.append(new)
        return self.row

    async def refresh_federation(self, trust_domain: str, how: RefreshFederation) -> FederationRow:
        self.acts.append((trust_domain, how))
        return self.row

    async def end_federation(self, trust_domain: str, reason: str) -> FederationEnded:
        self.acts.append((trust_domain, reason))
        return FederationEnded(trust_domain, TIME, self.row.entries)


def typed(monkeypatch: pytest.MonkeyPatch, ca: Ca, *words: str) -> int:
    """The exit status of a command line whose work is done with ``ca``."""
    monkeypatch.setattr(session, "administer", lambda reach, work: asyncio.run(work(ca)))
    done = CliRunner().invoke(command_line.command, words, standalone_mode=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    if done.exception is not None:
        raise done.exception
    status: int = done.return_value
    return status


ADD = ("add", "other.example", "--url", URL, "--profile")
SPIFFE = ("https_spiffe", "--spiffe-id", "spiffe://other.example/mesh/ca")


def test_what_the_options_say_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca, file = Ca(), tmp_path / "bundle"
    assert typed(monkeypatch, ca, *ADD, "https_web") == 0
    given = mesh(OTHER).bundle.to_pem().decode()
    file.write_text(given)
    more = ("--bundle", str(file), "--crl-url", "http://o.example/crls", "--reason", "R")
    assert typed(monkeypatch, ca, *ADD, *SPIFFE, *more) == 0
    assert ca.acts == [
        NewFederation("other.example", URL, "https_web"),
        NewFederation(
            "other.example", URL, "https_spiffe", SPIFFE[2], given, "http://o.example/crls", "R"
        ),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("https_mtls",), "is no profile"),
        (("https_web", "--spiffe-id", "spiffe://other.example/x"), "takes a URL and nothing more"),
        (("https_spiffe",), "demands the SPIFFE ID"),
        (SPIFFE, "demands a bundle of other.example"),
        (("https_web", "--crl-url", "https://o.example/"), "--crl-url"),
    ],
)
def test_what_cannot_be_is_refused_before_the_ca_is_asked(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    ca = Ca()
    with pytest.raises(Unusable, match=told):
        typed(monkeypatch, ca, *ADD, *words)
    assert ca.acts == []


def test_a_bundle_that_is_no_text_or_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "der").write_bytes(b"\x30\x82\xff\xff")
    for name, kind in (("der", Unusable), ("gone", StateError)):
        with pytest.raises(kind, match=name):
            typed(monkeypatch, Ca(), *ADD, *SPIFFE, "--bundle", str(tmp_path / name))


def test_what_is_missing_is_said_when_one_is_added(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, Ca(replace(ROW, entries=[])), *ADD, "https_web")
    told = capsys.readouterr().err
    assert "no entry federates with it yet" in told
    assert "there is no --crl-url" in told
    typed(monkeypatch, Ca(replace(ROW, crl_url="http://x/")), *ADD, "https_web")
    assert capsys.readouterr().err == ""


def test_a_list_tells_how_each_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = replace(ROW, believed=False, problems=["it does not answer"], next_at=None)
    assert typed(monkeypatch, Ca(failing), "list") == 0
    told = capsys.readouterr().out
    for word in ("other.example", "no", "5", "2m 5s", "now", "it does not answer"):
        assert word in told
    assert typed(monkeypatch, Ca(), "list", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["sequence"] == 5
    assert typed(monkeypatch, Ca(unreadable={"c.example": "it is damaged"}), "list") == 1
    assert "federation remove c.example" in capsys.readouterr().err


def test_one_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = Ca(replace(ROW, problems=["late"], passed_over=["a weak key"]))
    assert typed(monkeypatch, ca, "show", "other.example") == 0
    told = capsys.readouterr().out
    for word in (URL, "sha256:ab", "k1", "e1", "late", "a weak key", "300 s", "2m 5s"):
        assert word in told
    # Of one that came with a file nobody has heard since.
    given = Ca(replace(ROW, fetched_at=None, age=None))
    typed(monkeypatch, given, "show", "other.example")
    assert "from a file" in capsys.readouterr().out


def test_it_is_refreshed_and_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = Ca()
    assert typed(monkeypatch, ca, "refresh", "other.example", "--accept-older") == 0
    assert typed(monkeypatch, ca, "remove", "other.example", "--yes", "--reason", "over") == 0
    assert ca.acts == [("other.example", RefreshFederation(True)), ("other.example", "over")]
    told = capsys.readouterr()
    assert "is not federated with any more" in told.out
    assert "e1 still name it" in told.err
