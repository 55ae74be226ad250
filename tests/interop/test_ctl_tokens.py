"""``mesh-ctl token`` against a running CA: one line is enough for a new machine, and is shown once."""

import re
import shlex
from pathlib import Path

from cryptography import x509

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.spiffe import SpiffeId
from pki.svid.x509svid import extension, load_certificates
from tests.interop.administering import acts, answer, told
from tests.interop.house import READY, House, Reply
from tests.running import BIN, Running

WEB = "spiffe://mesh.local/service/joined-web"


def token_of(house: House, token_id: str) -> dict[str, str]:
    found: dict[str, str]
    rows = house.ask("socket", "/api/v1/tokens").json["tokens"]
    (found,) = [row for row in rows if row["id"] == token_id]
    return found


def join(house: House, token: str, key: MemoryKey, spiffe_id: str = WEB) -> Reply:
    csr = build_csr(key, SpiffeId.parse(spiffe_id)).decode()
    asked = {"csr": csr, "requested_id": spiffe_id, "token": token}
    return house.post("tls", "/api/v1/sign", asked)


def new_key() -> MemoryKey:
    return MemoryKey.generate(KeyAlgorithm.EC_P256)


def test_programs_get_what_a_new_machine_needs(shared: House) -> None:
    made = answer(shared, "token", "create", "--spiffe-id", WEB, "--ttl", "1h")
    assert set(made) == {"token", "id", "entry", "spiffe_id", "ca_url", "fingerprint", "expires_at"}
    assert made["ca_url"] == f"https://localhost:{shared.ca_port}"
    assert made["fingerprint"] == re.findall(r"sha256:[0-9a-f]{64}", shared.ca.text)[0]
    entry = answer(shared, "entry", "show", made["entry"])
    assert (entry["spiffe_id"], entry["selectors"]) == (WEB, [f"token:{made['entry']}"])


def test_the_line_that_is_shown_makes_a_server_join(shared: House, tmp_path: Path) -> None:
    shown = shared.ctl("token", "create", "--spiffe-id", WEB, "--dns", "www.example")
    assert (shown.returncode, shown.stderr) == (0, "")
    (line,) = [line for line in shown.stdout.splitlines() if "--join-token" in line]
    program, *words = shlex.split(line)
    assert Path(program).name == "mesh-server"
    elsewhere = {"MESH_STATE_DIR": str(tmp_path / "state"), "PYTHONUNBUFFERED": "1"}
    server = Running.start(
        BIN / "mesh-server", *words, "--listen", "127.0.0.1:0", cwd=tmp_path, env=elsewhere
    )
    try:
        server.wait_for(READY)
        (row,) = answer(shared, "cert", "list", "--spiffe-id", WEB, "--limit", "1")
        pem = answer(shared, "cert", "show", row["serial"])["certificate"]
        (leaf,) = load_certificates(pem.encode())
        names = extension(leaf, x509.SubjectAlternativeName)
        assert names is not None
        assert names.get_values_for_type(x509.DNSName) == ["localhost", "www.example"]
    finally:
        assert server.stop() == 0
    token_id = re.search(r"^token +(\w{12})$", shown.stdout, re.MULTILINE)
    assert token_id is not None
    spent = token_of(shared, token_id[1])
    assert (spent["status"], spent["serial"]) == ("spent", row["serial"])
    assert row["entry"] == spent["entry"]
    assert "mj1_" not in server.text


def test_a_token_is_shown_once_and_kept_nowhere(shared: House, tmp_path: Path) -> None:
    made = answer(shared, "token", "create", "--spiffe-id", WEB, "--reason", "for the books")
    secret = made["token"][4:]
    assert join(shared, made["token"], new_key()).status == 201
    export = tmp_path / "log.jsonl"
    told_of = ""
    # What was done is in the log at once, and in its tree, which is exported, within a second.
    for _ in range(20):
        told(shared.ctl("audit", "export", export), 0)
        told_of = export.read_text()
        if made["id"] in told_of:
            break
    assert made["id"] in told_of and "for the books" in told_of
    assert secret not in told_of
    assert secret not in shared.ctl("token", "list").stdout
    assert secret not in shared.ca.text
    for path in shared.state.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_token_for_a_csr_is_for_its_key_only(shared: House, tmp_path: Path) -> None:
    key, csr = new_key(), tmp_path / "web.csr"
    csr.write_bytes(build_csr(key, SpiffeId.parse(WEB)))
    made = answer(shared, "token", "create", "--spiffe-id", WEB, "--csr", str(csr))
    assert token_of(shared, made["id"])["key"] == key_id(key.public_key)
    other = join(shared, made["token"], new_key())
    assert (other.status, other.code) == (403, "not-authorized")
    assert join(shared, made["token"], key).status == 201
    named = ("--key", f"SHA256:{key_id(key.public_key).upper()}")
    again = answer(shared, "token", "create", "--spiffe-id", WEB, *named)
    assert join(shared, again["token"], key).status == 201


def test_a_revoked_token_buys_nothing(shared: House) -> None:
    first, second = (answer(shared, "token", "create", "--spiffe-id", WEB) for _ in range(2))
    done = answer(shared, "token", "revoke", first["id"], "--reason", "wrong list", "--yes")
    assert done["id"] == first["id"]
    assert answer(shared, "token", "revoke", first["id"], "--yes") == done, "the first answer again"
    assert answer(shared, "token", "revoke", second["token"], "--yes")["id"] == second["id"]
    for made in (first, second):
        assert token_of(shared, made["id"])["status"] == "revoked"
        assert join(shared, made["token"], new_key()).status == 401
    told_of = acts(shared, first["id"], 2)
    assert [row["entry"]["facts"].get("reason") for row in told_of] == [None, "wrong list"]


def test_what_a_spent_token_bought_is_told_to_whoever_revokes_it(shared: House) -> None:
    made = answer(shared, "token", "create", "--spiffe-id", WEB)
    assert join(shared, made["token"], new_key()).status == 201
    sentence = told(shared.ctl("token", "revoke", made["id"], "--yes"), 0)
    assert f"mesh-ctl entry delete {made['entry']}" in sentence


def test_a_token_is_made_for_an_entry_that_there_is(shared: House) -> None:
    template = ("--selector", "token:edge", "--spiffe-id", "spiffe://mesh.local/edge/{token}/*")
    entry = answer(shared, "entry", "create", *template)["id"]
    made = answer(shared, "token", "create", "--entry", entry)
    assert made["entry"] == entry
    assert join(shared, made["token"], new_key(), "spiffe://mesh.local/edge/edge/7").status == 201
    text = shared.ctl("token", "create", "--entry", entry).stdout
    assert "with a name in place of NAME" in text
    deleted = shared.ctl("entry", "delete", entry, "--yes").stdout
    assert "1 valid certificate bought by it, 1 live token" in deleted


def test_what_the_ca_refuses_is_one_sentence(shared: House) -> None:
    by_default = told(shared.ctl("token", "create", "--entry", "default"), 1)
    assert by_default.startswith("not-by-token: ")
    assert told(shared.ctl("token", "create", "--entry", "gone"), 1).startswith("not-found: ")
    assert told(shared.ctl("token", "revoke", "0" * 12, "--yes"), 1).startswith("not-found: ")
    foreign = told(shared.ctl("token", "create", "--spiffe-id", "spiffe://other.example/a"), 1)
    assert "it is below spiffe://mesh.local/" in foreign
