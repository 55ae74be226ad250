"""The test kit: what docs/TESTING.md shows, run as a user would, and every forgery refused."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.running import CHECKOUT
from twisted_mesh.testing import FORGERIES, MemoryCa, MemoryLog, shake_hands

DOCUMENT = (CHECKOUT / "docs" / "TESTING.md").read_text()


def test_two_members_let_each_other_in() -> None:
    ca = MemoryCa()
    shaken = shake_hands(ca.member("web"), ca.member("shop"))
    assert shaken.ok
    assert str(shaken.client) == "spiffe://mesh.test/service/shop"
    assert str(shaken.server) == "spiffe://mesh.test/service/web"


def test_who_is_not_allowed_is_refused() -> None:
    ca = MemoryCa()
    assert shake_hands(ca.member("web", allow=["admin"]), ca.member("shop")).codes == [
        "not-authorized"
    ]


@pytest.mark.parametrize("what", sorted(FORGERIES))
def test_every_forgery_is_refused_at_both_ends(what: str) -> None:
    ca = MemoryCa()
    good, forged = ca.member("web"), ca.member("shop", svid=ca.forged(what))
    as_client, as_server = shake_hands(good, forged), shake_hands(forged, good)
    assert as_client.client is None and as_client.server_problems
    assert as_server.server is None and as_server.client_problems
    if what in ("expired", "not-yet-valid", "revoked"):
        assert as_client.codes == [what]


def test_a_forgery_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="'epxired' is none of expired, "):
        MemoryCa().forged("epxired")


def test_what_is_made_past_the_logs_is_refused_at_both_ends() -> None:
    ca = MemoryCa(logs=[MemoryLog("a"), MemoryLog("b")])
    good, strict = ca.member("shop"), ca.member("web", require_sct=2)
    assert shake_hands(strict, good).ok and shake_hands(good, strict).ok
    thief = ca.member("shop", svid=ca.issue("shop", logs=[]))
    assert shake_hands(strict, thief).codes == ["no-sct"]
    assert shake_hands(thief, strict).codes == ["no-sct"]
    assert shake_hands(good, thief).ok, "who demands none sees no difference"


def test_the_clock_ends_certificates() -> None:
    ca = MemoryCa()
    web, shop = ca.member("web"), ca.member("shop")
    ca.clock.advance(timedelta(hours=2).total_seconds())
    assert "expired" in shake_hands(web, shop).codes


def test_an_identity_is_written_and_loaded_by_the_standard_library(tmp_path: Path) -> None:
    member = MemoryCa().member("web")
    member.write(tmp_path / "identity")
    assert list((tmp_path / "identity").rglob("svid.pem"))
    assert member.ssl_context(serves=True).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("runner", ["pytest", "twisted.trial"])
def test_its_example_runs(runner: str, tmp_path: Path) -> None:
    example = DOCUMENT.split("```python\n")[1].split("```")[0]
    (tmp_path / "test_shop.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", runner, "test_shop.py" if runner == "pytest" else "test_shop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_needs_no_reactor_and_nothing_of_developers() -> None:
    code = (
        "import sys, twisted_mesh.testing\n"
        "sys.exit(bool({'twisted.internet.reactor', 'pytest', 'hypothesis'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
