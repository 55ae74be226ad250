"""``mesh-ctl entry`` against a running CA: an entry lets in from the moment it is made until it is deleted."""

import json
import os
from pathlib import Path

import pytest

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.interop.administering import NOBODY, acts, answer, issue, sign_as_nobody, told
from tests.interop.house import House

FILE = """
[entries.shop]
selectors = ["unix:user:www-data"]
spiffe_id = "spiffe://{trust_domain}/service/shop"
"""


def made(house: House, *options: str) -> str:
    entry: str = answer(house, "entry", "create", *options)["id"]
    return entry


def test_the_default_entry_is_listed_as_what_it_is(shared: House) -> None:
    (default,) = [e for e in answer(shared, "entry", "list") if e["id"] == "default"]
    assert default["selectors"] == [f"unix:uid:{os.getuid()}"]
    assert default["spiffe_id"] == "spiffe://mesh.local/service/**"
    assert (default["source"], default["honoured"]) == ("default", True)
    heading, *lines = shared.ctl("entry", "list").stdout.splitlines()
    assert heading.split() == ["ENTRY", "SELECTORS", "BUYS", "KEPT", "IN", "COMMENT"]
    assert sum(line.startswith("default ") for line in lines) == 1


def test_an_entry_is_made_shown_listed_and_deleted(shared: House) -> None:
    created = answer(
        shared, "entry", "create", "--selector", "unix:user:web", "--selector", "unix:gid:7",
        "--spiffe-id", "spiffe://{trust_domain}/web/{unix.user}", "--dns", "web.example", "--ip", "192.0.2.1",
        "--ttl", "5m", "--max-ttl", "1h", "--key", "ec-p256", "--comment", "the web", "--reason", "ticket 11",
    )  # fmt: skip
    assert created["selectors"] == ["unix:gid:7", "unix:user:web"]
    assert created["spiffe_id"] == "spiffe://mesh.local/web/{unix.user}"
    assert (created["dns_names"], created["ip_addresses"]) == (["web.example"], ["192.0.2.1"])
    assert (created["ttl"], created["max_ttl"], created["keys"]) == ("5m", "1h", ["ec-p256"])
    assert (created["source"], created["comment"]) == ("store", "the web")
    assert answer(shared, "entry", "show", created["id"]) == created
    assert created in answer(shared, "entry", "list")
    shown = shared.ctl("entry", "show", created["id"]).stdout
    assert "web.example" in shown and "the web" in shown

    deleted = answer(shared, "entry", "delete", created["id"], "--reason", "ticket 12", "--yes")
    assert set(deleted) == {"id", "deleted_at", "certificates", "tokens"}
    assert (deleted["id"], deleted["certificates"]) == (created["id"], 0)
    sentence = told(shared.ctl("entry", "show", created["id"]), 1)
    assert sentence.startswith("not-found: ")
    assert told(shared.ctl("entry", "delete", created["id"], "--yes"), 1) == sentence

    told_of = [row["entry"]["facts"] for row in acts(shared, created["id"], 2)]
    assert [facts["reason"] for facts in told_of] == ["ticket 11", "ticket 12"]


def test_an_entry_lets_another_user_in_until_it_is_deleted(shared: House) -> None:
    nobodys = "spiffe://mesh.local/nobody/x"
    before = sign_as_nobody(shared, nobodys)
    assert before.status in (401, 403)
    entry = made(shared, "--selector", f"unix:uid:{NOBODY}", "--spiffe-id", nobodys)
    try:
        reply = sign_as_nobody(shared, nobodys)
        assert reply.status == 201, reply.text
        assert answer(shared, "cert", "show", reply.json["serial"])["entry"] == entry
        assert f" {entry}\n" in shared.ctl("cert", "list", "--spiffe-id", nobodys).stdout
        assert sign_as_nobody(shared, f"{nobodys}/y").code == "not-authorized"
        assert "names-granted-only" in sign_as_nobody(shared, nobodys, "bank.example").text
    finally:
        deleted = shared.ctl("entry", "delete", entry, "--yes")
    assert deleted.returncode == 0
    assert "1 valid certificate bought by it" in deleted.stdout
    assert "not renewed: mesh-ctl cert revoke ends them now" in deleted.stderr
    assert sign_as_nobody(shared, nobodys).status == before.status


def test_a_renewal_ends_with_the_entry(shared: House) -> None:
    joined = "spiffe://mesh.local/service/short-stay"
    token = answer(shared, "token", "create", "--spiffe-id", joined)
    url, root = f"https://localhost:{shared.ca_port}", str(shared.root)
    home = shared.home / "short-stay"
    done = shared.client(
        "--ca-url", url, "--ca-file", root, "--join-token", token["token"], "--spiffe-id", joined,
        "--export", str(home),
    )  # fmt: skip
    assert (home / "svid.pem").exists(), done.stderr
    own = ("--cert", home / "svid.pem", "--key", home / "svid_key.pem")
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    asked = {"csr": build_csr(key, SpiffeId.parse(joined)).decode(), "requested_id": joined}
    assert shared.post("tls", "/api/v1/sign", asked, *own).status == 201
    assert shared.ctl("entry", "delete", token["entry"], "--yes").returncode == 0
    refused = shared.post("tls", "/api/v1/sign", asked, *own)
    assert (refused.status, refused.code) == (403, "not-authorized")
    assert "no-entry" in refused.json["detail"]
    assert not [t for t in answer(shared, "token", "list") if t["id"] == token["id"]]


def test_what_the_ca_refuses_is_one_sentence(shared: House) -> None:
    foreign = shared.ctl(
        "entry", "create", "--selector", "unix:uid:7", "--spiffe-id", "spiffe://other.example/a"
    )
    assert "it is below spiffe://mesh.local/" in told(foreign, 1)
    too_long = shared.ctl(
        "entry", "create", "--selector", "unix:uid:7", "--spiffe-id", "spiffe://mesh.local/a",
        "--reason", "x" * 201,
    )  # fmt: skip
    assert "at most 200 characters" in told(too_long, 1)


def test_an_entry_of_the_file_is_deleted_there(house: House, tmp_path: Path) -> None:
    file = tmp_path / "entries.toml"
    file.write_text(FILE)
    house.start_ca("--entries", str(file))
    (shop,) = [e for e in answer(house, "entry", "list") if e["source"] == "file"]
    assert shop["id"].startswith("file.shop.") and shop["honoured"]
    sentence = told(house.ctl("entry", "delete", shop["id"], "--yes"), 1)
    assert sentence.startswith("entry-in-file: ")


def test_the_default_entry_is_gone_for_good_once_it_is_deleted(house: House) -> None:
    ca = house.start_ca()
    issue(house, "spiffe://mesh.local/service/early")
    assert house.ctl("entry", "delete", "default", "--yes").returncode == 0
    assert ca.stop() == 0
    house.start_ca()
    assert answer(house, "entry", "list") == []
    sentence = told(house.ctl("entry", "list"), 0)
    assert sentence == "there are no entries: nobody gets a certificate"


def test_the_default_entry_is_marked_where_it_does_not_count(house: House) -> None:
    assert house.start_ca().stop() == 0
    exposed = house.twistd("mesh-ca", "--listen", "0.0.0.0:0")
    exposed.wait_for(r"Ready to issue certificates\.")
    (default,) = answer(house, "entry", "list")
    assert default["honoured"] is False
    shown = house.ctl("entry", "list").stdout
    assert "not honoured: the CA listens beyond loopback" in shown
    why = house.ctl("why", "--spiffe-id", "spiffe://mesh.local/service/x", "--format", "json")
    assert why.returncode == 1
    (near,) = json.loads(why.stdout)["entries"]
    assert [reason["rule"] for reason in near["in_the_way"]] == ["not-honoured"]


@pytest.mark.parametrize("word", ["show", "delete"])
def test_an_entry_whose_name_is_a_path_is_not_found(word: str, shared: House) -> None:
    more = ("--yes",) if word == "delete" else ()
    for name in ("../tokens", "a/b", "x?y", "ä"):
        assert told(shared.ctl("entry", word, name, *more), 1).startswith("not-found: ")
