"""The CA's own files: made once, loaded ever after, and each way in which they can be broken has its sentence."""

import asyncio
import re
import shutil
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.logger import LogEvent

from pki.errors import Malformed
from pki.issuing.profile import ROOT
from pki.keys import KeyAlgorithm, spki_der
from pki.keys.pkcs8 import is_encrypted
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from tests.authorities import DAY, HOUR, MESH, NOW, OTHER, forge, key, mesh
from tests.twisted_mesh.ca.rigs import ca_rig
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.authority_files import load_or_create
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.state.directory import StateDirectory, StateError
from twisted_mesh.state.key_files import KeyFiles

P256, P384 = KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384
FILES = ("private/root.key", "private/issuing.key", "issuing.crt", "root.crt")


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    return state


def start(
    state: StateDirectory,
    now: datetime = NOW,
    trust_domain: TrustDomain = MESH,
    issuing: KeyAlgorithm = P256,
    passphrase: bytes | None = None,
) -> Authorities:
    return asyncio.run(
        load_or_create(
            state,
            KeyFiles(state.private, passphrase),
            trust_domain,
            now,
            root_key=KeySpec(P256),
            issuing_key=KeySpec(issuing),
        )
    )


def refusal(
    state: StateDirectory,
    now: datetime = NOW,
    trust_domain: TrustDomain = MESH,
    passphrase: bytes | None = None,
) -> str:
    """Why it does not start: a sentence with nothing private in it."""
    before = files(state)
    with pytest.raises((StateError, Malformed)) as refused:
        start(state, now, trust_domain, passphrase=passphrase)
    text = str(refused.value)
    assert text.isprintable()
    for content in before.values():
        for line in content.decode("latin-1").splitlines():
            assert len(line) < 20 or line.startswith("-----") or line not in text
    assert files(state) == before
    return text


def files(state: StateDirectory) -> dict[str, bytes]:
    return {
        str(path.relative_to(state.ca)): path.read_bytes()
        for path in state.ca.rglob("*")
        if path.is_file()
    }


# The first start.


def test_the_first_start_makes_all_and_the_second_finds_it(state: StateDirectory) -> None:
    made = start(state)
    assert sorted(files(state)) == sorted(FILES)
    before = files(state)
    found = start(state, NOW + HOUR)
    assert found.root == made.root
    assert found.issuing.certificate == made.issuing.certificate
    assert found.issuing.intermediates == (made.issuing.certificate,)
    assert found.root_key is not None
    assert files(state) == before


def test_keys_are_for_their_owner_alone_and_certificates_for_all(state: StateDirectory) -> None:
    start(state)
    modes = {name: stat.S_IMODE((state.ca / name).stat().st_mode) for name in FILES}
    assert modes == dict(zip(FILES, (0o600, 0o600, 0o644, 0o644), strict=True))


def test_the_keys_are_of_the_kinds_that_were_asked_for(state: StateDirectory) -> None:
    made = start(state, issuing=P384)
    assert made.issuing.key.algorithm is P384
    assert KeyAlgorithm.of(made.root.public_key()) is P256


def test_the_names_and_the_lives_are_those_of_the_contract(state: StateDirectory) -> None:
    made = start(state)
    assert "CN=mtls-mesh-root-ca" in made.root.subject.rfc4514_string()
    assert timedelta(days=3649) < made.root.not_valid_after_utc - NOW < timedelta(days=3654)
    assert timedelta(days=364) < made.issuing.certificate.not_valid_after_utc - NOW < 367 * DAY


def test_what_is_said_at_the_first_start_names_the_root(
    state: StateDirectory, logged: list[LogEvent]
) -> None:
    start(state)
    texts = [event_text(event) for event in logged]
    assert texts[0] == "Generating Root CA key pair (ECDSA P-256)..."
    assert texts[1] == "Generating issuing CA key pair (ECDSA P-256)..."
    assert texts[2].startswith("Root CA certificate created:\n  Subject: CN=mtls-mesh-root-ca")
    logged.clear()
    start(state)
    assert logged == []


def test_the_fingerprint_is_that_of_openssl(state: StateDirectory) -> None:
    made = start(state)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", made.fingerprint)
    assert start(state).fingerprint == made.fingerprint


def test_the_bundle_holds_the_root_and_nothing_else() -> None:
    with ca_rig() as rig:
        bundle = rig.ca.bundle()
        assert bundle.roots == (rig.home.root.certificate,)
        assert bundle.refresh_hint == 300
        assert list(rig.ca.bundles()) == [bundle]


def test_neither_of_the_cas_keys_may_be_certified(state: StateDirectory) -> None:
    made = start(state)
    keys = {spki_der(made.root.public_key()), spki_der(made.issuing.certificate.public_key())}
    assert made.forbidden_keys() == keys


# A first start that is cut short.


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_first_start_that_was_killed_is_made_anew(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        kill_before_write(number, patch)
        with pytest.raises(Killed):
            start(state)
    assert not state.root_certificate.exists()
    assert start(state).root_key is not None
    assert sorted(files(state)) == sorted(FILES)
    start(state)


# The root's key elsewhere.


def test_it_runs_with_the_roots_key_taken_away(state: StateDirectory) -> None:
    made = start(state)
    (state.private / "root.key").unlink()
    found = start(state)
    assert found.root_key is None
    assert found.issuing.certificate == made.issuing.certificate
    assert found.forbidden_keys() == made.forbidden_keys()


def test_an_issuing_ca_that_has_ended_is_loaded_where_the_roots_key_is(
    state: StateDirectory,
) -> None:
    """That another is made is the affair of succession, which has it recorded."""
    made = start(state)
    found = start(state, NOW + 400 * DAY)
    assert found.issuing.certificate == made.issuing.certificate


def test_without_the_roots_key_an_issuing_ca_that_has_ended_is_not_replaced(
    state: StateDirectory,
) -> None:
    start(state)
    (state.private / "root.key").unlink()
    text = refusal(state, NOW + 400 * DAY)
    assert f"bring {state.private / 'root.key'} back" in text


# Keys encrypted.

SECRET = b"correct horse"


def test_with_a_passphrase_the_keys_are_made_encrypted(state: StateDirectory) -> None:
    made = start(state, passphrase=SECRET)
    keys = {name: data for name, data in files(state).items() if name.endswith(".key")}
    assert len(keys) == 2
    assert all(map(is_encrypted, keys.values()))
    found = start(state, passphrase=SECRET)
    assert found.issuing.certificate == made.issuing.certificate
    assert found.root_key is not None


def test_plain_keys_are_encrypted_at_the_next_start(
    state: StateDirectory, logged: list[LogEvent]
) -> None:
    start(state)
    logged.clear()
    start(state, passphrase=SECRET)
    assert [event["event"] for event in logged] == ["key-encrypted", "key-encrypted"]
    assert "is encrypted: give its passphrase" in refusal(state)
    start(state, passphrase=SECRET)


def test_nothing_is_encrypted_in_a_state_that_is_refused(state: StateDirectory) -> None:
    start(state)
    (state.ca / "issuing.crt").write_bytes(b"x")
    refusal(state, passphrase=SECRET)


@pytest.mark.parametrize("passphrase", [None, b"battery staple"])
def test_without_the_right_passphrase_nothing_is_touched(
    state: StateDirectory, passphrase: bytes | None
) -> None:
    start(state, passphrase=SECRET)
    assert "--key-passphrase-file" in refusal(state, passphrase=passphrase)


def test_a_key_that_is_not_in_use_is_looked_at_too(state: StateDirectory) -> None:
    start(state)
    stray = state.private / "audit.key"
    stray.touch(0o644)
    assert f"chmod 600 {stray}" in refusal(state)


# Files that do not fit.


def of_another_ca(*names: str) -> Callable[[StateDirectory], None]:
    def replace(state: StateDirectory) -> None:
        other = StateDirectory(state.root.parent / "other")
        other.prepare()
        start(other)
        for name in names:
            shutil.copy(other.ca / name, state.ca / name)

    return replace


def written(name: str, data: bytes) -> Callable[[StateDirectory], None]:
    return lambda state: _write(state, name, data)


def _write(state: StateDirectory, name: str, data: bytes) -> None:
    (state.ca / name).write_bytes(data)


def gone(name: str) -> Callable[[StateDirectory], None]:
    return lambda state: (state.ca / name).unlink()


def a_directory(name: str) -> Callable[[StateDirectory], None]:
    def replace(state: StateDirectory) -> None:
        (state.ca / name).unlink()
        (state.ca / name).mkdir()

    return replace


def cut_short(name: str) -> Callable[[StateDirectory], None]:
    def cut(state: StateDirectory) -> None:
        data = (state.ca / name).read_bytes()
        _write(state, name, data[: len(data) // 2])

    return cut


def twice(name: str) -> Callable[[StateDirectory], None]:
    return lambda state: _write(state, name, (state.ca / name).read_bytes() * 2)


def swapped(one: str, other: str) -> Callable[[StateDirectory], None]:
    def swap(state: StateDirectory) -> None:
        first, second = ((state.ca / name).read_bytes() for name in (one, other))
        _write(state, one, second)
        _write(state, other, first)

    return swap


def readable(name: str, mode: int) -> Callable[[StateDirectory], None]:
    return lambda state: (state.ca / name).chmod(mode)


def a_root_that_cannot_be_decoded(state: StateDirectory) -> None:
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\xde\xad")
    root = forge(None, ROOT, end=NOW + DAY, replace={x509.SubjectAlternativeName: (broken, False)})
    _write(state, "root.crt", certificates_pem([root]))


def a_root_of_another_kind(state: StateDirectory) -> None:
    """Whose key is kept elsewhere, as it may be."""
    odd = ec.generate_private_key(ec.SECP521R1())
    root = forge(None, ROOT, subject_key=odd, end=NOW + DAY)
    _write(state, "root.crt", certificates_pem([root]))
    (state.private / "root.key").unlink()


EDWARDS = ed448.Ed448PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
LOCKED = key(3).to_pem(b"passphrase")
LEAF = certificates_pem([mesh().leaf()])

#: What is broken, the file that has to be named, and a word of the rule.
BROKEN: dict[str, tuple[Callable[[StateDirectory], None], str, str]] = {
    "root certificate gone": (gone("root.crt"), "root.crt", "restore it from a backup"),
    "root certificate empty": (written("root.crt", b""), "root.crt", "there is nothing in it"),
    "root certificate cut short": (cut_short("root.crt"), "root.crt", "no certificates in PEM"),
    "root certificate twice": (twice("root.crt"), "root.crt", "2 certificates"),
    "root certificate a directory": (a_directory("root.crt"), "root.crt", "cannot be read"),
    "root certificate a key": (written("root.crt", key(3).to_pem()), "root.crt", "no certificates"),
    "root certificate of another CA": (of_another_ca("root.crt"), "root.key", "not the key of"),
    "root certificate a leaf": (written("root.crt", LEAF), "root.crt", "another --trust-domain"),
    "root that cannot be decoded": (a_root_that_cannot_be_decoded, "root.crt", "decoded"),
    "root of another kind": (a_root_of_another_kind, "root.crt", "does not use"),
    "root and its key of another CA": (
        of_another_ca("root.crt", "private/root.key"),
        "issuing.crt",
        "does not fit",
    ),
    "root key of another CA": (of_another_ca("private/root.key"), "root.key", "not the key of"),
    "root key cut short": (cut_short("private/root.key"), "root.key", "damaged"),
    "root key empty": (written("private/root.key", b""), "root.key", "no private key"),
    "root key with a passphrase": (written("private/root.key", LOCKED), "root.key", "passphrase"),
    "root key of another kind": (written("private/root.key", EDWARDS), "root.key", "none of"),
    "root key for all to read": (readable("private/root.key", 0o604), "root.key", "chmod 600"),
    "issuing certificate gone": (gone("issuing.crt"), "issuing.crt", "cannot be read"),
    "issuing certificate empty": (written("issuing.crt", b"x"), "issuing.crt", "no certificates"),
    "issuing certificate twice": (twice("issuing.crt"), "issuing.crt", "2 certificates"),
    "issuing certificate of another CA": (
        of_another_ca("issuing.crt"),
        "issuing.crt",
        "does not fit",
    ),
    "issuing certificate and key of another CA": (
        of_another_ca("issuing.crt", "private/issuing.key"),
        "issuing.crt",
        "does not fit",
    ),
    "issuing key of another CA": (
        of_another_ca("private/issuing.key"),
        "issuing.key",
        "restore all three from one backup",
    ),
    "issuing key gone": (gone("private/issuing.key"), "issuing.key", "cannot be read"),
    "issuing key a directory": (a_directory("private/issuing.key"), "issuing.key", "cannot be"),
    "issuing key cut short": (cut_short("private/issuing.key"), "issuing.key", "damaged"),
    "issuing key for its group": (
        readable("private/issuing.key", 0o640),
        "issuing.key",
        "can be read by others",
    ),
    "keys swapped": (swapped("private/root.key", "private/issuing.key"), "root.key", "not the key"),
    "certificates swapped": (swapped("root.crt", "issuing.crt"), "root.key", "not the key of"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_do_not_fit_are_refused_by_name(state: StateDirectory, name: str) -> None:
    breaks, file, words = BROKEN[name]
    start(state)
    breaks(state)
    text = refusal(state)
    assert file in text
    assert words in text


def test_the_state_of_another_trust_domain_is_refused(state: StateDirectory) -> None:
    start(state)
    text = refusal(state, trust_domain=OTHER)
    assert "the root of spiffe://mesh.local, not of spiffe://other.example" in text


def test_a_root_that_is_not_valid_yet_makes_one_look_at_the_clock(state: StateDirectory) -> None:
    start(state)
    assert "check this machine's clock" in refusal(state, NOW - DAY)
