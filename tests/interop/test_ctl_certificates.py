"""``mesh-ctl cert`` against a running CA: list, show, revoke, export."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from pki.serial import parse_serial, serial_pairs
from pki.validity import rfc3339
from tests.interop.administering import answer, issue, statuses, told
from tests.interop.house import House
from tests.running import BIN
from twisted_mesh.runtime.clock import wall_clock

LISTED = "spiffe://mesh.local/listed"


@pytest.fixture(scope="module")
def listed(shared: House) -> dict[str, str]:
    """Serials by name: three below ``/listed`` and one beside it."""
    names = ("a", "b/one", "b/two")
    found = {name: issue(shared, f"{LISTED}/{name}") for name in names}
    return {**found, "beside": issue(shared, "spiffe://mesh.local/listed-beside/x")}


def test_certificates_are_listed_newest_first(shared: House, listed: dict[str, str]) -> None:
    rows = answer(shared, "cert", "list", "--spiffe-id", f"{LISTED}/**")
    assert [row["serial"] for row in rows] == [listed["b/two"], listed["b/one"], listed["a"]]
    assert set(rows[0]) == {
        "serial", "subject", "spiffe_id", "issued_at", "expires_at", "status", "revoked_at",
        "reason", "issuer", "key", "requester", "entry", "connections",
    }  # fmt: skip
    assert (rows[0]["status"], rows[0]["requester"]) == ("valid", f"unix:uid:{os.getuid()}")


def test_people_see_a_table_with_serials_in_pairs(shared: House, listed: dict[str, str]) -> None:
    done = shared.ctl("cert", "list", "--spiffe-id", f"{LISTED}/a")
    heading, row = done.stdout.splitlines()
    assert heading.split() == ["SERIAL", "SPIFFE", "ID", "STATUS", "ISSUED", "EXPIRES", "ENTRY"]
    assert row.split()[:3] == [serial_pairs(parse_serial(listed["a"])), f"{LISTED}/a", "valid"]
    assert "\x1b" not in done.stdout


def test_each_filter_finds_its_own(shared: House, listed: dict[str, str]) -> None:
    (a,) = answer(shared, "cert", "list", "--spiffe-id", f"{LISTED}/a")
    subtree = ("--spiffe-id", f"{LISTED}/**")
    assert list(statuses(shared, "--key", a["key"])) == [listed["a"]]
    assert list(statuses(shared, "--serial", listed["a"])) == [listed["a"]]
    assert not statuses(shared, "--serial", "00ff")
    assert listed["a"] in statuses(shared, "--issuer", f"SHA256:{a['issuer']}".lower(), *subtree)
    assert not statuses(shared, "--issuer", "0" * 64)
    later, earlier = (rfc3339(wall_clock() + timedelta(hours=n)) for n in (9, -9))
    for option, some, none in (
        ("--issued-after", earlier, later),
        ("--issued-before", later, earlier),
        ("--expires-after", earlier, later),
        ("--expires-before", later, earlier),
    ):
        assert len(statuses(shared, option, some, *subtree)) == 3, option
        assert not statuses(shared, option, none, *subtree), option


def test_a_limit_says_that_there_are_more(shared: House, listed: dict[str, str]) -> None:
    some = shared.ctl("cert", "list", "--spiffe-id", f"{LISTED}/**", "--limit", "2")
    assert len(some.stdout.splitlines()) == 3
    assert told(some, 0) == "these are the newest 2: --all shows all, --limit more"
    assert told(shared.ctl("cert", "list", "--spiffe-id", f"{LISTED}/**", "--all"), 0) == ""
    nobody = shared.ctl("cert", "list", "--spiffe-id", "spiffe://mesh.local/nobody/**")
    assert told(nobody, 0) == "there is no such certificate"


def test_one_certificate_is_shown_with_its_pem(shared: House, listed: dict[str, str]) -> None:
    pairs = serial_pairs(parse_serial(listed["a"]))
    done = shared.ctl("cert", "show", pairs)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^serial +{pairs}$", done.stdout, re.MULTILINE)
    assert re.search(r"^status +valid$", done.stdout, re.MULTILINE)
    inspected = shared.run(BIN / "pki-inspect", "show", "-", stdin=done.stdout)
    assert f"{LISTED}/a" in inspected.stdout
    assert answer(shared, "cert", "show", listed["a"])["certificate"] in done.stdout


def test_a_serial_that_was_never_given_out_is_not_found(shared: House) -> None:
    sentence = told(shared.ctl("cert", "show", "00ff00ff"), 1)
    assert sentence.startswith("not-found: ")
    assert "ff00ff" in sentence
    assert told(shared.ctl("cert", "revoke", "--serial", "00ff00ff", "--yes"), 1) == sentence


def test_revoking_is_for_good_and_may_be_repeated(shared: House) -> None:
    serial = issue(shared, "spiffe://mesh.local/revoked/one")
    first = shared.ctl(
        "cert", "revoke", "--serial", serial.upper(), "--reason", "keyCompromise", "--yes"
    )
    assert (told(first, 0), first.stdout) == ("", "1 certificate revoked (keyCompromise)\n")
    again = shared.ctl("cert", "revoke", "--serial", serial, "--yes")
    assert again.stdout == "0 certificates revoked (unspecified); 1 had been before\n"
    assert again.returncode == 0
    shown = answer(shared, "cert", "show", serial)
    assert (shown["status"], shown["reason"]) == ("revoked", "keyCompromise")


def test_a_whole_subtree_is_revoked_after_a_look_at_it(shared: House) -> None:
    tree = "spiffe://mesh.local/fell"
    serials = [issue(shared, f"{tree}/{n % 3}/{n}") for n in range(5)]
    beside = issue(shared, f"{tree}-beside/0")
    dry = shared.ctl("cert", "revoke", "--spiffe-id", f"{tree}/**", "--dry-run")
    assert told(dry, 0).startswith("5 certificates would be revoked; 0 open connections on them, ")
    assert len(dry.stdout.splitlines()) == 6
    assert set(statuses(shared, "--spiffe-id", f"{tree}/**").values()) == {"valid"}

    done = answer(shared, "cert", "revoke", "--spiffe-id", f"{tree}/**", "--yes")
    assert sorted(done["revoked"]) == sorted(serials)
    assert (done["failed"], done["meanwhile"]) == ([], 0)
    assert set(statuses(shared, "--spiffe-id", f"{tree}/**").values()) == {"revoked"}
    assert answer(shared, "cert", "show", beside)["status"] == "valid"


def test_the_whole_record_is_exported(
    shared: House, listed: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "record.jsonl"
    sentence = told(shared.ctl("cert", "export", file), 0)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sentence == f"{len(rows):,} certificates written to {file}"
    assert set(listed.values()) < {row["serial"] for row in rows}
    assert file.stat().st_mode & 0o777 == 0o600
    printed = shared.ctl("cert", "export").stdout.splitlines()
    assert [json.loads(line)["serial"] for line in printed] == [row["serial"] for row in rows]


def test_an_export_that_cannot_be_written_changes_nothing(shared: House, tmp_path: Path) -> None:
    sentence = told(shared.ctl("cert", "export", tmp_path / "gone" / "file"), 2)
    assert "cannot be written (No such file or directory)" in sentence
    assert "is not a file" in told(shared.ctl("cert", "export", tmp_path), 2)


def test_without_a_ca_it_says_so(tmp_path: Path, shared: House) -> None:
    sentence = told(shared.ctl("cert", "list", "--state-dir", tmp_path), 3)
    assert f"no CA answers at unix:{tmp_path}/ca/ca.sock" in sentence
    assert "twistd -n mesh-ca" in sentence


def test_over_https_it_proves_itself_by_an_svid(shared: House) -> None:
    me = shared.identity("payment-worker").directory
    url = f"https://localhost:{shared.ca_port}"
    # A workload proves who it is, and that is not an administrator.
    sentence = told(shared.ctl("cert", "list", "--ca-url", url, "--svid", me), 1)
    assert "administrators-only" in sentence
    assert "spiffe://mesh.local/service/payment-worker" in sentence
    nobody = shared.ctl("cert", "list", "--ca-url", url, "--ca-file", shared.root)
    assert "no-proof" in told(nobody, 1)


def test_every_door_serves_an_administrator(shared: House, listed: dict[str, str]) -> None:
    url = f"http://localhost:{shared.plain_port}"
    rows = answer(shared, "cert", "list", "--ca-url", url, "--spiffe-id", f"{LISTED}/a")
    assert [row["serial"] for row in rows] == [listed["a"]]
    at_socket = answer(
        shared, "cert", "list", "--ca-url", f"unix:{shared.socket}", "--spiffe-id", f"{LISTED}/a"
    )
    assert at_socket == rows
