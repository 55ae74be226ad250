"""While the issuing key's store is away: what is answered, what is on record all the same, and that it heals."""

import json

import pytest

from pki.keys import KeyReference
from pki.serial import serial_hex
from tests.authorities import BACKEND
from tests.twisted_mesh.ca.api.test_app import Api, csr
from tests.twisted_mesh.ca.rigs import CaRig, result_of, settled
from tests.twisted_mesh.keystores.fake_store import FakeStore
from twisted_mesh.ca.check import Check, Standing
from twisted_mesh.keystores.standing import keys_standing
from twisted_mesh.keystores.stores import KeyStores

SIGN = {"csr": csr(), "requested_id": str(BACKEND)}


@pytest.fixture
def token(rig: CaRig) -> FakeStore:
    """The issuing key is on it."""
    token = FakeStore()
    token.start()
    uri = f"{token.uri};object=mesh.local%20issuing-1;id=%01"
    token.keys[uri] = (rig.signer.key, "mesh.local issuing-1")
    stores = KeyStores({token.uri: token})
    rig.ca.authorities.issuing.key = stores.key(KeyReference(uri, rig.signer.key.public_key))
    rig.ca.health.kept = lambda: keys_standing(stores)
    return token


def look(rig: CaRig, name: str) -> Check:
    rig.seconds += 2
    return next(c for c in result_of(rig.ca.health.examine()) if c.name == name)


def test_issuing_says_why_and_puts_nothing_on_record(rig: CaRig, token: FakeStore) -> None:
    api = Api(rig)
    assert api.ask("POST", "/api/v1/sign", SIGN).status == 201
    token.is_away = True
    first = api.ask("POST", "/api/v1/sign", SIGN)
    assert first.status == 503
    told = json.loads(first.body)
    assert told["code"] == "key-store-away"
    assert "put it back" in told["detail"]
    # The first one found out, and left an intent that is written off; no other leaves any.
    begun = len(result_of(settled(rig.ca.store.open_intents())))
    for _ in range(3):
        assert api.ask("POST", "/api/v1/sign", SIGN).status == 503
    assert len(result_of(settled(rig.ca.store.open_intents()))) == begun == 1
    token.is_away = False
    result_of(token.look())
    assert api.ask("POST", "/api/v1/sign", SIGN).status == 201


def test_a_refusal_of_the_store_is_told_by_its_own_code(rig: CaRig, token: FakeStore) -> None:
    token.refuses = "the PIN is wrong: correct it in its file"
    told = json.loads(Api(rig).ask("POST", "/api/v1/sign", SIGN).body)
    assert (told["status"], told["code"]) == (503, "key-store-refused")


def test_revoking_is_recorded_and_the_crl_catches_up(rig: CaRig, token: FakeStore) -> None:
    api = Api(rig)
    leaf, *_ = rig.sign()
    serial = serial_hex(leaf.serial_number)
    rig.ca.publisher.begin()
    result_of(rig.ca.publisher.attend())
    token.is_away = True
    answer = api.ask("POST", "/api/v1/revoke", {"serial": serial})
    assert answer.status == 503
    assert json.loads(answer.body)["code"] == "not-published"
    shown = json.loads(api.ask("GET", f"/api/v1/certificates/{serial}").body)
    assert shown["status"] == "revoked"
    assert [r.serial for r in rig.told] == [leaf.serial_number], "endpoints heard of it"
    found = look(rig, "crls")
    assert found.standing is Standing.FAIL
    assert found.detail.startswith("1 revocation is on record and on no CRL: the CRL of CN=")
    assert "put it back" in found.detail
    told = json.loads(api.ask("GET", "/readyz").body)
    assert "unhealthy-crls" not in {p["code"] for p in told["problems"]}, "it is signing that fails"
    assert "mesh-ctl ca keys" in told["problems"][0]["remedy"]
    token.is_away = False
    # What another reason keeps from being published does not keep the CA from telling who asks.
    result_of(token.look())
    rig.seconds += 2
    degraded = json.loads(api.ask("GET", "/readyz").body)["degraded"]
    assert [(c["name"], c["status"]) for c in degraded] == [("crls", "fail")]
    result_of(rig.ca.publisher.attend())
    assert look(rig, "crls").standing is Standing.WARN, "there is none of the root"
    crl = rig.ca.publisher.current(rig.ca.authorities.issuing.key_id)
    assert crl is not None
    assert crl.entries == 1
    assert api.ask("POST", "/api/v1/revoke", {"serial": serial}).status == 200


def test_health_tells_which_store_and_does_not_wear_it_out(rig: CaRig, token: FakeStore) -> None:
    assert look(rig, "signing").standing is Standing.OK
    assert look(rig, "keys").detail == f"keys are in {token.uri}, and those sign"
    signed = token.signed
    for _ in range(5):
        assert look(rig, "signing").standing is Standing.OK
    assert token.signed == signed, "a signature each second costs somebody"
    token.is_away = True
    result_of(token.look())
    assert look(rig, "signing").standing is Standing.FAIL
    found = look(rig, "keys")
    assert found.standing is Standing.WARN
    assert f"{token.uri} does not sign" in found.detail
    token.is_away = False
    result_of(token.look())
    assert look(rig, "signing").standing is Standing.OK
    rig.seconds += 60
    assert look(rig, "signing").standing is Standing.OK
    assert token.signed > signed, "and now and then it is asked"
