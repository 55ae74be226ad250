"""``mesh-ctl cert revoke`` with a real CA: by whatever names a certificate, and for good."""

import json
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import GIVEN_REASONS
from pki.validity import rfc3339
from tests.interop.administering import answer, issue, statuses, told
from tests.interop.house import House
from tests.interop.test_ctl_confirmation import at_a_terminal
from tests.interop.test_who_may import serial_of
from tests.interop.wires import tls
from tests.running import until
from twisted_mesh.runtime.clock import wall_clock

REQUEST = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


def certified(house: House, key: MemoryKey, spiffe_id: str) -> tuple[str, str]:
    """A certificate for that key: its serial, and itself as PEM."""
    csr = build_csr(key, SpiffeId.parse(spiffe_id)).decode()
    reply = house.post("socket", "/api/v1/sign", {"csr": csr, "requested_id": spiffe_id})
    assert reply.status == 201, reply.text
    return reply.json["serial"], reply.json["certificate"]


def would_be(house: House, *options: str | Path) -> list[str]:
    """The serials that a dry run shows, sorted."""
    rows = answer(house, "cert", "revoke", "--dry-run", *map(str, options))
    return sorted(row["serial"] for row in rows)


def test_a_stolen_key_takes_all_its_certificates_along(shared: House, tmp_path: Path) -> None:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    ids = [f"spiffe://mesh.local/stolen/{n}" for n in range(3)]
    siblings = [certified(shared, key, spiffe_id) for spiffe_id in ids]
    beside = issue(shared, "spiffe://mesh.local/stolen/beside")
    serials = sorted(serial for serial, _ in siblings)
    certificate, csr, public = (tmp_path / name for name in ("cert.pem", "csr.pem", "key.pub"))
    certificate.write_text(siblings[0][1])
    csr.write_bytes(build_csr(key, SpiffeId.parse(ids[0])))
    shared.run("openssl", "req", "-in", csr, "-noout", "-pubkey", "-out", public)
    for named in (key_id(key.public_key), certificate, csr, public):
        assert would_be(shared, "--key", named) == serials, named
    assert would_be(shared, "--key", csr, "--spiffe-id", ids[1]) == [siblings[1][0]]

    done = shared.ctl("cert", "revoke", "--key", csr, "--reason", "keyCompromise", "--yes")
    assert (told(done, 0), done.stdout) == ("", "3 certificates revoked (keyCompromise)\n")
    again = shared.ctl("cert", "revoke", "--key", csr, "--yes")
    assert again.stdout == "0 certificates revoked (unspecified)\n"
    assert set(statuses(shared, "--key", str(csr)).values()) == {"revoked"}
    assert statuses(shared, "--serial", beside)[beside] == "valid"


def test_what_an_entry_bought_is_revoked_with_it(shared: House) -> None:
    spiffe_id = "spiffe://mesh.local/bought/one"
    made = answer(
        shared, "entry", "create", "--selector", "unix:uid:65533", "--spiffe-id", spiffe_id
    )
    token = answer(shared, "token", "create", "--spiffe-id", spiffe_id)
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, SpiffeId.parse(spiffe_id)).decode()
    body = {"csr": csr, "requested_id": spiffe_id, "token": token["token"]}
    serial = shared.post("socket", "/api/v1/sign", body).json["serial"]
    issue(shared, spiffe_id)
    assert would_be(shared, "--entry", token["entry"]) == [serial]
    assert would_be(shared, "--entry", made["id"]) == []
    assert list(statuses(shared, "--entry", token["entry"])) == [serial]
    done = shared.ctl("cert", "revoke", "--entry", token["entry"], "--yes")
    assert done.stdout == "1 certificate revoked (unspecified)\n"


def test_issuer_times_and_names_must_all_match(shared: House) -> None:
    tree = "spiffe://mesh.local/window"
    early = issue(shared, f"{tree}/early", "30m")
    time.sleep(1.1)  # times on record are whole seconds
    between = rfc3339(wall_clock())
    time.sleep(1.1)
    late = issue(shared, f"{tree}/late", "2h")
    below = ("--spiffe-id", f"{tree}/**")
    issuer = shared.state / "ca" / "issuing.crt"
    assert would_be(shared, *below, "--issuer", issuer) == sorted([early, late])
    assert would_be(shared, *below, "--issued-before", between) == [early]
    assert would_be(shared, *below, "--issued-after", between) == [late]
    hour = rfc3339(wall_clock() + timedelta(hours=1))
    assert would_be(shared, *below, "--expires-after", hour) == [late]
    assert would_be(shared, *below, "--expires-before", hour) == [early]
    assert would_be(shared, *below, "--issuer", "0" * 64) == []
    assert would_be(shared, "--serial", early, "--issued-before", between) == [early]
    assert would_be(shared, "--serial", late, "--issued-before", between) == []
    root = shared.ctl("cert", "revoke", "--issuer", shared.root, "--dry-run")
    assert "this is a root: name the issuing CA that it has signed" in told(root, 2)
    leaf = shared.ctl(
        "cert", "revoke", "--issuer", shared.identity("payment-worker").cert, "--dry-run"
    )
    assert "is no CA's" in told(leaf, 2)


def test_each_reason_that_a_leaf_can_have_is_taken(shared: House) -> None:
    given = {}
    for reason in GIVEN_REASONS:
        serial = issue(shared, "spiffe://mesh.local/reasons/one")
        given[serial] = str(reason)
        done = shared.ctl("cert", "revoke", "--serial", serial, "--reason", reason, "--yes")
        assert done.stdout == f"1 certificate revoked ({reason})\n"
    rows = answer(shared, "cert", "list", "--spiffe-id", "spiffe://mesh.local/reasons/one")
    assert {row["serial"]: row["reason"] for row in rows} == given


def test_a_dry_run_tells_how_many_connections_live_on_each(shared: House) -> None:
    busy = shared.identity("busy-one")
    serial = serial_of(busy)
    with (
        tls(shared.port, shared.root, busy) as first,
        tls(shared.port, shared.root, busy) as second,
        tls(shared.ca_port, shared.root, busy) as at_ca,
    ):
        for connection in (first, second):
            connection.sendall(REQUEST)
            assert b"200 OK" in connection.recv(65536)
        at_ca.sendall(b"GET /api/v1/ca HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in at_ca.recv(65536)
        until(lambda: answer(shared, "cert", "show", serial)["connections"] == 3)
        dry = shared.ctl("cert", "revoke", "--serial", serial, "--dry-run")
        assert re.fullmatch(
            r"1 certificate would be revoked; 3 open connections on them, as the CA and \d+ endpoints? "
            r"told in the last 30s",
            told(dry, 0),
        )
        heading, line = dry.stdout.splitlines()
        assert (heading.split()[-1], line.split()[-1]) == ("CONNECTIONS", "3")
        (listed,) = answer(shared, "cert", "list", "--serial", serial)
        assert listed["connections"] == 3
        connections = shared.ask("socket", "/api/v1/connections").json
        assert connections["endpoints"] >= 1
        assert connections["own"] >= 1
    exported = [json.loads(line) for line in shared.ctl("cert", "export").stdout.splitlines()]
    assert all("connections" not in row for row in exported)


@pytest.fixture
def serials(house: House) -> list[str]:
    house.start_ca()
    return [issue(house, f"spiffe://mesh.local/all/{n}") for n in range(3)]


def test_all_of_an_issuer_is_revoked_for_good_and_the_ca_stays(
    house: House, serials: list[str]
) -> None:
    issuer = str(house.state / "ca" / "issuing.crt")
    archive = house.home / "ca.tar"
    assert house.ctl("backup", "create", archive).returncode == 0

    for typed, status in ((b"y\n", 1), (b"3\n", 0)):
        code, said = at_a_terminal(house, typed, "cert", "revoke", "--issuer", issuer)
        assert code == status, said
        assert "This is about everybody: 3 certificates of 3 SPIFFE IDs would be revoked" in said
        assert re.search(r"certificates? of the CA itself left out", said), said
    rows = {row["spiffe_id"]: row["status"] for row in answer(house, "cert", "list", "--all")}
    own = {rows.pop(spiffe_id) for spiffe_id in list(rows) if "/mesh/" in spiffe_id}
    assert own == {"valid"}, "its own certificate, and that of its OCSP responder"
    assert set(rows.values()) == {"revoked"}
    assert house.curl(f"https://localhost:{house.ca_port}/livez").returncode == 0

    # Neither a restart nor the backup from before brings one back.
    assert house.ca.stop() == 0
    house.processes.pop(0)
    ca = house.start_ca()
    assert {statuses(house)[serial] for serial in serials} == {"revoked"}
    assert ca.stop() == 0
    house.processes.pop()
    restored = house.ctl("backup", "restore", archive, "--accept-loss")
    assert restored.returncode == 0, restored.stderr
    house.start_ca()
    assert {statuses(house)[serial] for serial in serials} == {"revoked"}
    named = [word for serial in serials for word in ("--serial", serial)]
    done = house.ctl("cert", "revoke", *named, "--yes")
    assert done.stdout == "0 certificates revoked (unspecified); 3 had been before\n"
    trust = house.ask("socket", "/api/v1/trust?after=0").json
    assert {revoked["serial"] for revoked in trust["revocations"]} >= set(serials)
    issuing = x509.load_pem_x509_certificate(Path(issuer).read_bytes())
    assert {revoked["issuer"] for revoked in trust["revocations"]} == {key_id(issuing.public_key())}


def test_a_ca_whose_own_certificate_is_revoked_serves_with_another(house: House) -> None:
    house.start_ca()
    own = ("--spiffe-id", "spiffe://mesh.local/mesh/ca")
    (before,) = statuses(house, *own)
    assert answer(house, "cert", "revoke", *own, "--yes")["revoked"] == [before]
    until(lambda: "valid" in statuses(house, *own).values())
    found = statuses(house, *own)
    assert found.pop(before) == "revoked"
    url = f"https://localhost:{house.ca_port}/livez"
    asked = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    shown = house.s_client(house.ca_port, stdin=asked)
    served = x509.load_pem_x509_certificate(
        ("-----BEGIN" + shown.stdout.partition("-----BEGIN")[2]).encode()
    )
    assert f"{served.serial_number:032x}" in found
    assert house.curl(url).returncode == 0
