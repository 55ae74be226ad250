"""A platform is one new file on each side and one line each: a CA of which nothing else is changed grants by it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from pki.errors import Malformed
from tests.running import CHECKOUT, Running, free_port, until
from tests.twisted_mesh.attest.badge_prover import PROVERS
from tests.twisted_mesh.attest.programs import Starting, programs_of
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.status import REFUSED, UNUSABLE
from twisted_mesh.evidence import option
from twisted_mesh.stdlib import join

BUILD = "spiffe://mesh.local/service/build"
SECRET = "of-the-badge-office"


@define(eq=False)
class Place:
    """A CA with the platform of the drill, and programs that show it their badge."""

    path: Path
    start: Starting

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def attestors(self) -> Path:
        return self.path / "attestors.toml"

    def badge(self, name: str, secret: str = SECRET) -> str:
        file = self.path / f"{name}.badge"
        file.write_text(f"{name}\n{secret}\n")
        return f"badge:{file}"

    def ca(self, *options: str) -> tuple[Running, str]:
        """It runs; and where it is."""
        self.attestors.write_text(f'[badge]\nsecret = "{SECRET}"\n')
        ca = self.start(
            *("twistd", "-n", "--pidfile=", "mesh-ca", "--port", "0", "--root-key", "ec-p256"),
            *("--attestors", str(self.attestors), *options),
        )
        ca.wait_for(r"Ready to issue certificates\.")
        return ca, f"https://localhost:{ca.wait_for(r'listening on https://[^:]+:([0-9]+)')[1]}"

    def entry(self, name: str, *options: str) -> None:
        made = self.start(
            *("mesh-ctl", "entry", "create", "--selector", f"badge:name:{name}"),
            *("--spiffe-id", BUILD, *options),
        )
        assert made.wait() == 0, made.text

    def joining(self, ca: str, badge: str) -> tuple[str, ...]:
        root = str(self.state / "ca" / "root.crt")
        return ("--ca-url", ca, "--ca-file", root, "--attest", badge, "--spiffe-id", BUILD)

    def export(self, ca: str, badge: str, *options: str, state: str = "endpoint") -> Running:
        """mesh-client, which obtains an identity by its badge, and keeps it as files."""
        return self.start(
            *("mesh-client", "--export", str(self.path / "out"), *self.joining(ca, badge)),
            *("--state-dir", str(self.path / state), *options),
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with programs_of("with_badge", tmp_path) as start:
        yield Place(tmp_path, start)


def test_a_service_joins_by_its_platform_and_renews_by_its_svid(place: Place) -> None:
    ca, url = place.ca("--cert-duration", "6s")
    place.entry("build")
    badge = place.badge("build")
    server = place.start(
        *("twistd", "-n", "--pidfile=", "mesh-server", "--listen", str(free_port())),
        *place.joining(url, badge),
        *("--state-dir", str(place.path / "server"), "--log-level", "debug"),
    )
    server.wait_for(r"Showing the CA evidence of this platform \(badge\)")
    server.wait_for(r"Certificate rotation complete")
    Path(badge.removeprefix("badge:")).unlink()  # the SVID is the proof from now on
    server.wait_for(r"Certificate rotation complete", count=2)
    assert server.text.count("Showing the CA evidence") == 1
    assert "badge:build" in ca.text
    assert SECRET not in ca.text + server.text


def test_forged_unknown_and_missing_evidence_gets_nobody_in(place: Place) -> None:
    _, url = place.ca()
    place.entry("build")
    forged = place.export(url, place.badge("build", "guessed"))
    assert forged.wait() == REFUSED
    assert "bad-evidence: the MAC of this badge is not by our secret" in forged.text
    other = place.export(url, place.badge("other"))
    assert other.wait() == REFUSED
    assert "no registration entry lets this caller have" in other.text
    away = place.export(url, f"badge:{place.path / 'none'}", "--timeout", "1s")
    assert away.wait() == REFUSED
    assert "there is no badge at" in away.text
    with_ = place.export(url, place.badge("build"), "--join-token", "mj1_" + "a" * 40)
    assert with_.wait() != 0
    assert not (place.path / "out").exists()


@pytest.mark.parametrize("place_of_ca", ["http://localhost:8080"])
def test_evidence_is_shown_to_nobody_who_is_not_judged(place: Place, place_of_ca: str) -> None:
    missing = f"badge:{place.path / 'never-read'}"
    asked = place.start(
        *("mesh-client", "--export", str(place.path / "out"), "--ca-url", place_of_ca),
        *("--attest", missing, "--spiffe-id", BUILD),
    )
    assert asked.wait() == UNUSABLE
    assert "and never at http://localhost:8080" in asked.text


def test_an_entry_may_want_the_evidence_each_time(place: Place) -> None:
    ca, url = place.ca("--cert-duration", "6s")
    place.entry("build", "--reattest")
    badge = place.badge("build")
    server = place.start(
        *("twistd", "-n", "--pidfile=", "mesh-server", "--listen", str(free_port())),
        *place.joining(url, badge),
        *("--state-dir", str(place.path / "server")),
    )
    server.wait_for(r"Certificate rotation complete", count=2)
    assert server.text.count("Showing the CA evidence") >= 2
    ca.wait_for("reattest-required")
    place.badge("build", "guessed")
    server.wait_for("bad-evidence")


def test_what_is_taken_is_read_again_and_a_broken_file_changes_nothing(place: Place) -> None:
    ca, url = place.ca()
    place.entry("build")
    badge = place.badge("build")
    place.attestors.write_text('[badge]\nsecret = "x"\nsecrets = 1\n[bagde]\n')
    ca.process.send_signal(signal.SIGHUP)
    told = ca.wait_for(r"SIGHUP: --attestors .* is not taken up.*")[0]
    assert "there is no table [bagde] here" in told
    assert "unknown field `secrets` (there are secret, once)" in told
    place.export(url, badge, state="a").wait()
    assert (place.path / "out").exists()
    place.attestors.write_text("")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"was read again: evidence is taken of none")
    refused = place.export(url, badge, state="b")
    assert refused.wait() == REFUSED
    assert "unknown-attestation" in refused.text


def test_a_broken_file_ends_the_start(place: Place) -> None:
    place.attestors.write_text("[nobody]\n")
    ca = place.start(
        *("twistd", "-n", "--pidfile=", "mesh-ca", "--port", "0", "--root-key", "ec-p256"),
        *("--attestors", str(place.attestors)),
    )
    assert ca.wait() != 0
    assert "there is no table [nobody] here" in ca.text


def test_an_agent_keeps_files_for_others_by_its_platform(place: Place) -> None:
    _, url = place.ca()
    place.entry("build")
    agent = place.start(
        *("twistd", "-n", "--pidfile=", "mesh-agent", "--write", str(place.path / "files")),
        *place.joining(url, place.badge("build")),
        *("--state-dir", str(place.path / "agent")),
    )
    agent.wait_for(r"Showing the CA evidence of this platform \(badge\)")
    until((place.path / "files" / "svid.pem").exists, lambda: agent.text)


def test_a_program_without_a_reactor_joins_by_its_platform(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(option, "PROVERS", PROVERS)
    _, url = place.ca("--cert-duration", "6s")
    place.entry("build", "--reattest")
    root = place.state / "ca" / "root.crt"
    words = {"ca_url": url, "ca_file": root, "state_dir": place.path / "joined"}
    with join(BUILD, attest=place.badge("build"), **words) as identity:
        first = identity.svid.leaf.serial_number
        until(lambda: identity.svid.leaf.serial_number != first)
    with pytest.raises(Malformed, match="attest and a join token exclude each other"):
        join(BUILD, attest=place.badge("build"), join_token="mj1_x", **words)
    with pytest.raises(Malformed, match="and never at http://localhost:1"):
        join(BUILD, attest=place.badge("build"), ca_url="http://localhost:1")
    with pytest.raises(CaRefused, match="bad-evidence"):
        place_of_its_own = {**words, "state_dir": place.path / "other"}
        join(BUILD, attest=place.badge("build", "guessed"), **place_of_its_own)


@pytest.mark.slow
def test_a_parent_shows_the_evidence_for_its_workers(place: Place) -> None:
    _, url = place.ca("--cert-duration", "10s")
    place.entry("build", "--reattest")
    server = place.start(
        *("twistd", "-n", "--pidfile=", "mesh-server", "--listen", str(free_port())),
        *place.joining(url, place.badge("build")),
        *("--state-dir", str(place.path / "server"), "--workers", "2"),
    )
    until(lambda: server.text.count("Showing the CA evidence") >= 3, lambda: server.text)


def test_it_took_one_file_and_one_line_on_each_side() -> None:
    """Nothing of the product knows the drill."""
    for package in ("pki", "twisted_mesh"):
        for path in (CHECKOUT / package).rglob("*.py"):
            assert "badge" not in path.read_text().lower(), path
    for name in ("badge.py", "badge_prover.py"):
        lines = Path(__file__).with_name(name).read_text().splitlines()
        ours = {line.split()[1] for line in lines if line[:5] == "from "}
        assert {one for one in ours if one.startswith(("pki", "twisted_mesh", "tests"))} <= {
            "pki.errors",
            "pki.policy.selector",
            "tests.twisted_mesh.attest.badge",
            "twisted_mesh.attest.attestors_file",
            "twisted_mesh.attest.challenges",
            "twisted_mesh.attest.errors",
            "twisted_mesh.attest.evidence",
            "twisted_mesh.attest.interface",
            "twisted_mesh.evidence.interface",
        }
