"""A signer as a CA's key store: the suite of all key stores, and what only a signer can do wrong."""

import base64
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference, MemoryKey, SigningFailed, signature_over, spki_der
from tests.authorities import key
from tests.twisted_mesh.grpc.sockets import own_reactor, run, turn_until
from tests.twisted_mesh.keystores.conformance import Ground, KeyStoreConformance
from tests.twisted_mesh.signer.stub import (
    Stub,
    answer,
    factory,
    over_tls,
    refusal,
)
from twisted_mesh.ca.api.status import status_of
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused, RefusedByRule
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.pins import Pins
from twisted_mesh.signer.client_key import CLIENT_KEY
from twisted_mesh.signer.store import SignerStore, open_store
from twisted_mesh.tls.self_signed import pin_of

P256 = KeyAlgorithm.EC_P256


@define(eq=False)
class Place:
    """A stub at a socket, that is there or is not; and the store that is asked for its keys."""

    directory: Path
    stub: Stub = field(factory=Stub)
    store: SignerStore = field(init=False)
    _port: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.store = store_at(f"signer:unix:{self.directory}/s", self.directory)

    def bring_back(self) -> None:
        self._port = own_reactor().listenUNIX(str(self.directory / "s"), factory(self.stub))

    def take_away(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            run(stopped(port))
            self.stub.drop()
            turn_until(lambda: not self.stub.connections)


async def stopped(port: Any) -> None:
    await port.stopListening()


def store_at(uri: str, directory: Path) -> SignerStore:
    store = open_store(uri, StoreGround(own_reactor(), Pins(), directory / "private"))
    store.start()
    return store


@pytest.fixture
def place() -> Iterator[Place]:
    with TemporaryDirectory() as directory:
        found = Place(Path(directory))
        found.bring_back()
        yield found
        run(found.store.stop())
        found.take_away()


class TestSignerStore(KeyStoreConformance):
    """As every key store."""

    algorithms = (P256, KeyAlgorithm.ED25519, KeyAlgorithm.EC_P384)
    destroys = False

    @pytest.fixture
    def ground(self, place: Place) -> Ground:
        return Ground(place.store, run, place.take_away, place.bring_back)


def refused(work: Any) -> PkiError:
    with pytest.raises((KeyStoreAway, KeyStoreRefused)) as refusal:
        run(work)
    assert str(refusal.value).isprintable()
    return refusal.value


def test_the_signer_is_told_what_a_key_is_for(place: Place) -> None:
    for word in ("root-2", "issuing-7", "audit", "else"):
        run(place.store.generate(P256, f"mesh.local {word}"))
    asked = [body for path, body in place.stub.asked if path == "POST /v1/keys"]
    assert [body["purpose"] for body in asked] == ["root", "issuing", "audit", "issuing"]
    assert asked[0]["label"] == "mesh.local root-2"


def test_a_key_that_is_there_is_found_by_its_name(place: Place) -> None:
    held = place.stub.hold("mesh.local-issuing-1")
    found = run(place.store.find("signer:mesh.local-issuing-1"))
    assert str(found.reference) == str(KeyReference("signer:mesh.local-issuing-1", held.public_key))
    assert run(signature_over(b"data", found, held.public_key))
    error = refused(place.store.find("signer:nobody"))
    assert isinstance(error, KeyStoreRefused)
    assert "has no key nobody: it has mesh.local-issuing-1" in str(error)


def test_a_wrong_signature_is_none(place: Place) -> None:
    made = run(place.store.generate(P256, "mesh.local issuing-1"))
    wrong = base64.b64encode(run(key("other").sign(b"data"))).decode()
    place.stub.fault = lambda *_: answer(200, {"signature": wrong})
    with pytest.raises(SigningFailed):
        run(signature_over(b"data", made, made.public_key))


def test_a_policy_that_says_no_is_no_problem_of_the_store(place: Place) -> None:
    made = run(place.store.generate(P256, "mesh.local issuing-1"))
    place.stub.fault = lambda *_: refusal(
        403, "signing-refused", "CRL 7 is older than 9", "", "crl-number"
    )
    error = refused(made.sign(b"data"))
    assert isinstance(error, KeyStoreRefused)
    assert "says no: CRL 7 is older than 9 (rule crl-number)" in str(error)
    assert place.store.problem is None


@pytest.mark.parametrize(
    ("rule", "is_the_callers"), [("names", True), ("profile", True), ("clock", False), ("", False)]
)
def test_a_rule_about_the_name_that_was_asked_for_is_the_callers(
    place: Place, rule: str, is_the_callers: bool
) -> None:
    made = run(place.store.generate(P256, "mesh.local issuing-1"))
    place.stub.fault = lambda *_: refusal(403, "signing-refused", "not that one", "", rule)
    error = refused(made.sign(b"data"))
    assert isinstance(error, RefusedByRule) == is_the_callers
    assert status_of(error) == (403 if is_the_callers else 503)


def test_a_rate_that_is_used_up_is_for_now_and_no_problem_of_the_store(place: Place) -> None:
    made = run(place.store.generate(P256, "mesh.local issuing-1"))
    place.stub.fault = lambda *_: refusal(429, "signing-rate", "1000 an hour are the most")
    assert isinstance(refused(made.sign(b"data")), KeyStoreAway)
    assert place.store.problem is None


def test_what_is_behind_the_signer_may_be_away(place: Place) -> None:
    """Then the signer answers, and the store has a problem all the same, until that key signs again."""
    made = run(place.store.generate(P256, "mesh.local issuing-1"))
    away = refusal(503, "key-store-away", "the token mesh was pulled", "put it back")

    def pulled(stub: Stub, _: Any, path: str, body: dict[str, Any]) -> bytes:
        if path == "POST /v1/whereabouts":
            said = {"key": body["key"], "store": "pkcs11:token=mesh", "problem": "token pulled"}
            return answer(200, said)
        return away if path == "POST /v1/sign" else stub.good(path, body)

    place.stub.fault = pulled
    error = refused(made.sign(b"data"))
    assert isinstance(error, KeyStoreAway)
    assert "the token mesh was pulled; put it back" in str(error)
    assert place.store.problem is error
    run(place.store.look())
    assert "token pulled" in str(place.store.problem)
    assert run(place.store.whereabouts(made.reference)).problem is not None
    # Others may be on another token.
    place.stub.fault = None
    assert run(made.sign(b"data"))
    run(place.store.look())
    assert place.store.problem is None


def test_while_it_is_silent_nobody_waits_for_long_and_it_is_asked_once_for_all(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_mesh.signer.store._LOOKING", 0.05)
    made = run(place.store.generate(P256, "mesh.local issuing-1"))
    client = place.store._client
    assert client is not None
    client.timeout = 0.05
    place.stub.fault = lambda *_: None
    assert isinstance(refused(made.sign(b"data")), KeyStoreAway)
    client.timeout = 10.0
    place.stub.asked.clear()
    failed = gatherResults(
        [
            Deferred.fromCoroutine(made.sign(b"data")).addErrback(lambda failure: failure.value)
            for _ in range(20)
        ]
    )
    outcomes = run(failed)
    assert {type(one) for one in outcomes} == {KeyStoreAway}
    assert [path for path, _ in place.stub.asked] == ["GET /v1/keys"]
    place.stub.fault = None
    assert run(made.sign(b"data"))
    assert place.store.problem is None


def test_keys_that_are_none_are_not_taken(place: Place) -> None:
    def says(**changed: str) -> None:
        good = {
            "name": "a",
            "label": "a",
            "algorithm": "ec-p256",
            "public_key": base64.b64encode(spki_der(key().public_key)).decode(),
            "purpose": "issuing",
            "store": "files",
        }
        place.stub.fault = lambda *_: answer(201, {**good, **changed})

    for changed, words in (
        ({"name": "../root"}, "its name is none"),
        ({"name": "a\nb"}, "its name is none"),
        ({"public_key": "AAAA"}, "cannot be used"),
        (
            {
                "public_key": base64.b64encode(
                    spki_der(key("r", KeyAlgorithm.EC_P384).public_key)
                ).decode()
            },
            "was asked for a key ec-p256, and made a, which is ec-p384",
        ),
    ):
        says(**changed)
        error = refused(place.store.generate(P256, "mesh.local issuing-1"))
        assert isinstance(error, KeyStoreRefused)
        assert words in str(error)


def test_over_tls_a_key_of_ours_is_made_once_and_kept(tmp_path: Path) -> None:
    stub = Stub()
    pin = pin_of(key("the signer's own"))
    kept = tmp_path / "private" / CLIENT_KEY
    with over_tls(stub) as port:
        uri = f"signer:https://127.0.0.1:{port}?pin={pin}"
        first = store_at(uri, tmp_path)
        assert kept.stat().st_mode & 0o777 == 0o600
        made = run(first.generate(P256, "mesh.local root-1"))
        run(first.stop())
        before = kept.read_bytes()
        again = store_at(uri, tmp_path)
        assert kept.read_bytes() == before
        assert run(signature_over(b"data", again.key(made.reference), made.public_key))
        assert again.uri == f"signer:https://127.0.0.1:{port}"
        run(again.stop())


def test_a_key_of_ours_that_others_can_read_is_not_shown_until_a_person_has_looked(
    tmp_path: Path,
) -> None:
    stub = Stub()
    with over_tls(stub) as port:
        uri = f"signer:https://127.0.0.1:{port}?pin={pin_of(key('the signer' + chr(39) + 's own'))}"
        run(store_at(uri, tmp_path).stop())
        kept = tmp_path / "private" / CLIENT_KEY
        kept.chmod(0o644)
        store = store_at(uri, tmp_path)
        error = refused(store.generate(P256, "mesh.local root-1"))
        assert "can be read by others" in str(error)
        assert store.problem is error
        assert stub.opened == 0
        kept.chmod(0o600)
        assert not store.try_again(), "there is no PIN"
        assert run(store.generate(P256, "mesh.local root-1"))
        run(store.stop())


def test_before_anybody_is_to_be_believed_it_says_which_key_is_ours(tmp_path: Path) -> None:
    """Each of the two needs to be told of the other's key first."""
    stub = Stub()
    with over_tls(stub) as port:
        store = store_at(f"signer:https://127.0.0.1:{port}", tmp_path)
        error = refused(store.generate(P256, "mesh.local root-1"))
        own = MemoryKey.from_pem((tmp_path / "private" / CLIENT_KEY).read_bytes())
        assert f"the key {pin_of(own)} (mesh-signer --client-pin)" in str(error)
        assert isinstance(error, KeyStoreRefused)
        assert stub.opened == 0
