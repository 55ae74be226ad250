"""The file of platforms: all of it good, or none of it; and who is asked by it from one reading to the next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from pki.errors import Malformed
from tests.authorities import MESH, NOW
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.badge import KINDS, BadgeAttestor, Settings
from twisted_mesh.attest import platforms
from twisted_mesh.attest.attestors_file import (
    BadAttestorsFile,
    absolute,
    read_attestors,
    settings_of,
)
from twisted_mesh.attest.configured import ConfiguredPlatforms
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.platforms import MissingExtra, Platform
from twisted_mesh.state.directory import StateError


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    drill = Platform("tests.twisted_mesh.attest.badge:BadgeAttestor", KINDS)
    there = Platform("tests.twisted_mesh.attest.lacking:Attestor", (), "drill")
    known = {"badge": drill, "lacking": there}
    monkeypatch.setattr(platforms, "PLATFORMS", known)
    with own_kinds():
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "attestors.toml"


def means() -> Means:
    nothing: Any = None
    return Means(Clock(), nothing, nothing, lambda: NOW, nothing, trust_domain=MESH)  # type: ignore[arg-type]


def test_each_table_is_read_by_its_platform(file: Path) -> None:
    file.write_text('\ufeff# platforms\n[badge]\nsecret = "x"\nonce = true\n', encoding="utf-8")
    found = read_attestors(file)
    assert found["badge"].settings == Settings("x", True)
    assert isinstance(found["badge"].attestor(means()), BadgeAttestor)


def test_an_empty_file_takes_no_evidence(file: Path) -> None:
    file.write_text("")
    assert read_attestors(file) == {}


BAD = {
    "[bagde]": r"there is no table \[bagde\] here: there are badge, lacking",
    "badge = 1": r"\[badge\]: it is a table",
    "[badge]": "missing required field `secret` \\(there are secret, once\\)",
    '[badge]\nsecret = ""': "secret is empty",
    '[badge]\nsecret = "x"\nonce = "yes"': "Expected `bool`",
    '[badge]\nsecret = "x"\nmore = 1': "unknown field `more`",
    '[[badge]]\nsecret = "x"': "Expected `object`, got `array`",
    '[badge]\nsecret = "x"\n[badge]\n': "badge",
    "[badge": "end of a table declaration",
    "\xff": "attestors",
    "[lacking]\nx = 1": r"pip install 'twisted-mesh\[drill\]'",
    "[badge]\n[other]": "no table .other. .*missing required field",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_named_with_its_table(text: str, file: Path) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadAttestorsFile, match=BAD[text]) as refusal:
        read_attestors(file)
    assert str(file) in str(refusal.value) and str(refusal.value).isprintable()
    assert refusal.value.code == "bad-attestors"


def test_a_file_that_others_may_change_or_that_is_gone_is_not_read(file: Path) -> None:
    with pytest.raises(StateError):
        read_attestors(file)
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(StateError, match="change"):
        read_attestors(file)


def test_at_a_reading_what_says_the_same_stays_and_a_broken_file_changes_nothing(
    file: Path,
) -> None:
    file.write_text('[badge]\nsecret = "x"\n')
    configured = ConfiguredPlatforms(file, means())
    first = configured.attestors.platforms["badge"]
    assert configured.read() == ""
    assert configured.attestors.platforms["badge"] is first
    file.write_text("[badge]\nsecret = 3\n")
    with pytest.raises(BadAttestorsFile):
        configured.read()
    assert configured.attestors.platforms["badge"] is first
    file.write_text('[badge]\nsecret = "y"\n')
    assert configured.read() == "evidence is taken of badge"
    assert configured.attestors.platforms["badge"] is not first
    file.write_text("")
    assert configured.read() == "evidence is taken of none"
    assert configured.attestors.platforms == {}


def test_health_tells_of_a_file_that_was_refused_until_it_is_good(file: Path) -> None:
    file.write_text('[badge]\nsecret = "x"\n')
    configured = ConfiguredPlatforms(file, means())
    assert configured.standing() == ("evidence is taken of badge", None)
    file.write_text("[bagde]\n")
    with pytest.raises(BadAttestorsFile):
        configured.read()
    told, problem = configured.standing()
    assert told == "evidence is taken of badge"
    assert problem is not None
    assert problem.code == "unhealthy-platforms"
    assert "there is no table [bagde] here" in problem.detail
    file.write_text("")
    configured.read()
    assert configured.standing() == ("evidence is taken of no platform", None)


def test_health_tells_of_a_platform_that_cannot_judge_until_it_can(file: Path) -> None:
    file.write_text('[badge]\nsecret = "x"\n')
    configured = ConfiguredPlatforms(file, means())
    configured.attestors.troubles["badge"] = "its office is away"
    _, problem = configured.standing()
    assert problem is not None
    assert problem.detail.endswith("and none has been good since: its office is away")
    file.write_text("")
    configured.read()
    assert configured.standing()[1] is None


def test_without_a_file_no_evidence_is_taken() -> None:
    configured = ConfiguredPlatforms(None, means())
    assert (configured.attestors.platforms, configured.read()) == ({}, "")


def test_files_are_named_by_whole_paths() -> None:
    assert absolute("/etc/x.pem", "[badge]") == Path("/etc/x.pem")
    for text in ("x.pem", "", "./x", "~/x", "/x\0", "/x\n"):
        with pytest.raises(Malformed, match=r"^\[badge\]: .* is no absolute path"):
            absolute(text, "[badge]")


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(MissingExtra, match="pip install"):
        platforms.PLATFORMS["lacking"].load()
    assert settings_of({"secret": "x"}, Settings, "[badge]") == Settings("x")
