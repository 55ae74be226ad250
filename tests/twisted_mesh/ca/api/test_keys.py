"""``POST /api/v1/ca/keys`` and ``rotate-issuing``, and what ``mesh-ctl ca keys`` makes of the answer."""

import json
from typing import Any

import msgspec
import pytest

from pki.keys import KeyReference
from tests.authorities import MESH, OTHER, mesh
from tests.twisted_mesh.ca.api.test_app import Api
from tests.twisted_mesh.ca.rigs import CaRig, result_of
from tests.twisted_mesh.keystores.fake_store import FakeStore
from twisted_mesh.api.key_messages import KeyRow, KeyRows
from twisted_mesh.cli.ctl.ca_keys import ShowingKeys, _put, verdict
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores

NONCE = "0123456789abcdef" * 2


def rows(rig: CaRig) -> list[KeyRow]:
    answer = Api(rig).ask("POST", "/api/v1/ca/keys", {"nonce": NONCE})
    return msgspec.json.decode(answer.body, type=KeyRows).keys


def by_purpose(rig: CaRig) -> dict[str, KeyRow]:
    return {row.purpose: row for row in rows(rig)}


def proven(row: KeyRow, rig: CaRig) -> str:
    return verdict(row, NONCE, rig.ca.authorities.roots)


def test_each_key_signs_what_was_drawn(rig: CaRig) -> None:
    found = by_purpose(rig)
    for purpose in ("issuing", "audit"):
        assert found[purpose].kind == "file"
        assert proven(found[purpose], rig).startswith("it has signed")
    assert verdict(found["issuing"], "f" * 32, rig.ca.authorities.roots).startswith("THE SIGNATURE")
    assert verdict(found["audit"], "f" * 32, ()).startswith("THE SIGNATURE")


def test_a_root_key_that_was_taken_away_is_no_failure(rig: CaRig) -> None:
    row = by_purpose(rig)["root"]
    assert (row.kind, row.signature) == ("away", None)
    assert proven(row, rig) == "it was taken away"


def test_a_signature_of_another_key_is_found_out(rig: CaRig) -> None:
    rig.signer.breaks = lambda: b"no signature"
    row = by_purpose(rig)["issuing"]
    assert row.signature is None
    assert "signing-failed" in row.problem


def test_somebody_elses_certificate_proves_nothing(rig: CaRig) -> None:
    row = by_purpose(rig)["issuing"]
    others = mesh(OTHER) if OTHER != MESH else mesh()
    assert "somebody else" in verdict(row, NONCE, [others.root.certificate])


def test_a_token_says_how_it_keeps_a_key(rig: CaRig) -> None:
    token = FakeStore()
    token.start()
    stored = token.key(
        KeyReference(f"{token.uri};object=issuing;id=%01", rig.signer.key.public_key)
    )
    token.keys[stored.uri] = (rig.signer.key, "mesh.local issuing-1")
    issuing = rig.ca.authorities.issuing
    issuing.key = StoredKey(stored.reference, stored.signer)
    object.__setattr__(rig.ca, "key_stores", KeyStores({token.uri: token}))
    row = by_purpose(rig)["issuing"]
    assert (row.kind, row.store, row.label) == ("pkcs11", "mesh", "mesh.local issuing-1")
    assert (row.extractable, row.sensitive, row.made_there) == (False, True, True)
    assert proven(row, rig).startswith("it has signed")
    token.is_away = True
    row = by_purpose(rig)["issuing"]
    assert row.signature is None
    assert "key-store-away" in row.problem
    assert row.uri == stored.uri


def test_what_the_ca_proves_itself_by_at_a_signer_is_told_also_while_that_is_away(
    rig: CaRig, capsys: pytest.CaptureFixture[str]
) -> None:
    signer = FakeStore(own_pin="sha256/AAAA")
    signer.start()
    stored = signer.key(KeyReference(f"{signer.uri};id=%01", rig.signer.key.public_key))
    rig.ca.authorities.issuing.key = StoredKey(stored.reference, stored.signer)
    object.__setattr__(rig.ca, "key_stores", KeyStores({signer.uri: signer}))
    signer.is_away = True
    row = by_purpose(rig)["issuing"]
    _put(row, verdict(row, NONCE, []))
    assert "sha256/AAAA (mesh-signer --client-pin)" in capsys.readouterr().out


@pytest.mark.parametrize("nonce", ["", "0" * 31, "0" * 65, "G" * 32, "0" * 31 + "\n"])
def test_a_nonce_is_hex_and_neither_short_nor_long(rig: CaRig, nonce: str) -> None:
    assert Api(rig).ask("POST", "/api/v1/ca/keys", {"nonce": nonce}).status == 400


class Asked:
    """What the command asks; the answer is the CA's, or made up."""

    def __init__(self, rig: CaRig, change: Any = None) -> None:
        self.rig, self.change = rig, change
        self.client = self

    async def roots(self) -> Any:
        return self.rig.ca.authorities.roots

    async def keys(self, nonce: str) -> KeyRows:
        answer = Api(self.rig).ask("POST", "/api/v1/ca/keys", {"nonce": nonce})
        found = msgspec.json.decode(answer.body, type=KeyRows)
        return found if self.change is None else KeyRows([self.change(r) for r in found.keys])


def test_the_command_shows_and_judges(rig: CaRig, capsys: pytest.CaptureFixture[str]) -> None:
    assert result_of(ShowingKeys(False)(Asked(rig))) == 0
    told = capsys.readouterr().out
    assert "issuing: " in told
    assert "a file of the CA's state directory" in told
    assert "not here: it was taken away" in told

    def forged(row: KeyRow) -> KeyRow:
        return msgspec.structs.replace(row, signature="AAAA") if row.signature else row

    assert result_of(ShowingKeys(True)(Asked(rig, forged))) == 1
    found = json.loads(capsys.readouterr().out)
    assert not any(row["proven"] for row in found)
