"""Possession of a key, proven out of files as people have them."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from zope.interface.verify import verifyObject

from pki.errors import Malformed, PkiError
from pki.keys import spki_der
from pki.svid.possession import NotPossessed, demand_possession, possession, statement
from tests.authorities import key, rsa_key
from tests.foreign_pki import Holder, intermediate, machine, root
from twisted_mesh.evidence.interface import IProver, NoEvidence
from twisted_mesh.evidence.x509pop import X509PopProver

CHALLENGE = "6562b3c0-0123456789abcdef-fedcba9876543210"
KEY = spki_der(key("certified").public_key)


def key_pem(holder: Holder, passphrase: bytes | None = None) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return holder.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode()


def prove(*files: Path) -> Any:
    prover = X509PopProver.of(",".join(map(str, files)))
    verifyObject(IProver, prover)
    assert all(str(file) in prover.where for file in files)
    found = prover.prove(CHALLENGE, KEY, "mesh.local")
    assert found.kind == "x509pop"
    return json.loads(found.data)


def test_one_file_with_all_of_it_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    for parts in (
        (key_pem(machine()), machine().pem, intermediate().pem),
        (intermediate().pem, machine().pem, key_pem(machine())),
    ):
        file.write_text("\n".join(parts))
        shown = prove(file)
        assert shown["chain"] == [machine().pem, intermediate().pem]
        assert shown["challenge"] == CHALLENGE


def test_two_files_one_of_which_has_the_key(tmp_path: Path) -> None:
    chain, own = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text(machine().pem + intermediate().pem)
    own.write_text(key_pem(machine()))
    assert len(prove(chain, own)["chain"]) == len(prove(own, chain)["chain"]) == 2


def test_files_are_read_again_for_each_proof(tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    file.write_text(machine().pem + key_pem(machine()))
    before = prove(file)["chain"]
    renewed = intermediate().machine(serial=99)
    file.write_text(renewed.pem + key_pem(renewed))
    assert prove(file)["chain"] == [renewed.pem] != before


def test_what_is_no_identity_is_told_without_a_piece_of_it(tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    for content, reason in (
        (machine().pem, "no private key|private key"),
        (key_pem(machine()), "no certificates"),
        (root().pem + key_pem(machine()), "none of the certificates is for the key"),
        (machine().pem + key_pem(machine(), b"secret"), "encrypted"),
        ("", "private key|nothing"),
    ):
        file.write_text(content)
        with pytest.raises(NoEvidence, match=reason) as refused:
            prove(file)
        assert "-----" not in str(refused.value)
    with pytest.raises(PkiError, match="cannot be read"):
        prove(tmp_path / "none.pem")


@pytest.mark.parametrize("named", [None, "", ",", "a,", "a,b,c"])
def test_files_that_are_not_named(named: str | None) -> None:
    with pytest.raises(Malformed, match=r"^--attest x509pop: name .* x509pop:CHAIN,KEY"):
        X509PopProver.of(named)


@pytest.mark.parametrize("challenge", [None, "", "give me your money", "0" * 500, "é" * 20])
def test_nobody_gets_a_signature_over_what_he_likes(challenge: str | None, tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    file.write_text(machine().pem + key_pem(machine()))
    with pytest.raises(PkiError):
        X509PopProver.of(str(file)).prove(challenge, KEY, "mesh.local")


def test_what_is_signed_is_all_of_it_and_begins_like_nothing_else() -> None:
    made = statement(CHALLENGE, "mesh.local", KEY)
    assert made.startswith(b" " * 64 + b"twisted-mesh, possession")
    others = {
        statement(CHALLENGE[:-1] + "1", "mesh.local", KEY),
        statement(CHALLENGE, "mesh.locax", KEY),
        statement(CHALLENGE, "mesh.local", KEY + b"\0"),
    }
    assert len({made, *others}) == 4


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (2048, 3)])
def test_a_weak_key_has_signed_nothing(bits: int, exponent: int) -> None:
    weak = rsa_key(bits, exponent)
    signed = statement(CHALLENGE, "mesh.local", KEY)
    signature = possession(weak, CHALLENGE, "mesh.local", KEY)
    with pytest.raises(NotPossessed, match="weak"):
        demand_possession(weak.public_key(), signature, signed)
