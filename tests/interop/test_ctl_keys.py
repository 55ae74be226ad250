"""``mesh-ctl key`` and ``--blocked-keys`` with a real CA: what is blocked stays so, over a restart too."""

import signal
from pathlib import Path

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey, key_id, spki_pin
from pki.spiffe import SpiffeId
from tests.interop.administering import answer
from tests.interop.house import House, Reply

ID = "spiffe://mesh.local/service/stolen"


def asked(house: House, key: MemoryKey) -> Reply:
    csr = build_csr(key, SpiffeId.parse(ID)).decode()
    return house.post("socket", "/api/v1/sign", {"csr": csr, "requested_id": ID})


def refusal(house: House, key: MemoryKey) -> str:
    reply = asked(house, key)
    assert reply.status == 422, reply.text
    (problem,) = reply.json["problems"]
    assert problem["code"] == "blocked-key"
    detail: str = problem["detail"]
    return detail


def test_a_key_is_blocked_by_hand_by_a_list_and_for_good(house: House, tmp_path: Path) -> None:
    stolen, listed, leaked = (MemoryKey.generate(KeyAlgorithm.EC_P256) for _ in range(3))
    names = tmp_path / "stolen.txt"
    names.write_text(f"{key_id(listed.public_key)}  # found on a wall\n")
    ca = house.start_ca("--blocked-keys", str(names))
    assert str(names) in refusal(house, listed)

    # By hand, by a file or a digest, and let go again.
    csr = tmp_path / "leaked.csr"
    csr.write_bytes(build_csr(leaked, SpiffeId.parse(ID)))
    assert asked(house, leaked).status == 201
    row = answer(house, "key", "block", str(csr), "--reason", "in a repository")
    assert (row["key"], row["serial"]) == (key_id(leaked.public_key), None)
    assert "(in a repository)" in refusal(house, leaked)
    assert house.ctl("key", "unblock", spki_pin(leaked.public_key), "--yes").returncode == 0
    assert asked(house, leaked).status == 201
    done = house.ctl("key", "unblock", str(csr), "--yes")
    assert (done.returncode, "not blocked" in done.stderr) == (1, True)

    # What is compromised is blocked for good.
    serial = asked(house, stolen).json["serial"]
    arguments = ("cert", "revoke", "--serial", serial, "--reason", "keyCompromise", "--yes")
    assert house.ctl(*arguments).returncode == 0
    assert serial in refusal(house, stolen)
    done = house.ctl("key", "unblock", key_id(stolen.public_key), "--yes")
    assert (done.returncode, "for good" in done.stderr) == (1, True)

    # A broken list changes nothing, a good one does.
    names.write_text("nonsense\n")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"ERROR: SIGHUP: --blocked-keys \S+ is not taken up.*line 1: 'nonsense'")
    assert str(names) in refusal(house, listed)
    names.write_text(f"{key_id(leaked.public_key)}\n")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"--blocked-keys \S+ was read again: \S+: 1 keys")
    assert asked(house, listed).status == 201
    assert str(names) in refusal(house, leaked)
    shown = answer(house, "key", "list")
    assert [each["key"] for each in shown["keys"]] == [key_id(stolen.public_key)]
    assert shown["lists"] == [{"file": str(names), "keys": 1}]
    told = house.ctl("key", "list").stdout
    assert f"{serial} was revoked as compromised" in told

    # Without the list, and with the record.
    assert ca.stop() == 0
    ca = house.start_ca()
    assert serial in refusal(house, stolen)
    assert asked(house, leaked).status == 201
    verified = house.ctl("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert ca.stop() == 0
