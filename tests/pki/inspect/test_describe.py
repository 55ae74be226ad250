"""Certificates and CSRs are described in full, whatever is wrong with them."""

import hashlib
import subprocess
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from attrs import asdict
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding, rsa
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pki.der import element, elements, pem
from pki.errors import Malformed, PkiError
from pki.inspect.certificate_reader import name_of
from pki.inspect.describe import certificates, describe, describe_certificate
from pki.inspect.description import Description
from pki.inspect.name_text import hex_pairs
from pki.issuing.csr import build_csr, load_csr
from pki.issuing.profile import ROOT
from pki.keys import KeyAlgorithm, spki_der
from pki.serial import serial_hex
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, HOUR, NOW, csr_builder, forge, key, mesh
from tests.tools import require_tool
from twisted_mesh.testing import names

DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM


def described(cert: x509.Certificate) -> Description:
    (found,) = describe(cert.public_bytes(DER), NOW)
    assert found == describe_certificate(cert, NOW)
    return found


def request(
    builder: x509.CertificateSigningRequestBuilder | None = None,
) -> x509.CertificateSigningRequest:
    return (builder or csr_builder()).sign(key().private_key, key().algorithm.hash)


def test_an_svid_is_described_in_full() -> None:
    leaf = mesh().leaf()
    shown = described(leaf)
    assert shown.what == "X.509-SVID"
    assert (shown.subject, shown.issuer) == (
        "CN=backend",
        "CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local",
    )
    assert (shown.version, shown.serial) == (3, leaf.serial_number)
    assert shown.signature_algorithm == "ECDSA with SHA-256"
    assert shown.validity and shown.validity.not_after == NOW + HOUR
    assert (shown.time_left, shown.until_valid) == (HOUR, None)
    assert shown.public_key and asdict(shown.public_key) == {
        "algorithm": "EC",
        "label": "ECDSA P-256",
        "bits": 256,
        "curve": "secp256r1",
        "exponent": None,
        "spki_sha256": hashlib.sha256(spki_der(leaf.public_key())).hexdigest(),
    }
    assert (shown.is_ca, shown.is_self_issued, shown.signed_by_itself) == (False, False, None)
    assert shown.spiffe_ids == ("spiffe://mesh.local/service/backend",)
    assert [extension.name for extension in shown.extensions] == [
        "basicConstraints",
        "keyUsage",
        "subjectKeyIdentifier",
        "authorityKeyIdentifier",
        "subjectAltName",
        "extKeyUsage",
    ]
    assert shown.sha256 == leaf.fingerprint(hashes.SHA256()).hex()
    assert shown.sha1 == leaf.fingerprint(hashes.SHA1()).hex()
    assert (shown.attributes, shown.remarks) == ((), ())


def test_what_a_certificate_is() -> None:
    assert described(mesh().root.certificate).what == "root CA"
    assert described(mesh().issuing.certificate).what == "issuing CA"
    assert described(forge(mesh().issuing, uris=["https://web.example"])).what == "certificate"
    assert (
        described(forge(mesh().issuing, replace={x509.SubjectAlternativeName: None})).what
        == "certificate"
    )


def test_a_root_is_signed_by_itself_and_a_forged_one_is_not() -> None:
    root = described(mesh().root.certificate)
    assert (root.is_ca, root.is_self_issued, root.signed_by_itself) == (True, True, True)
    name = mesh().root.certificate.subject
    forged = described(forge(mesh().issuing, ROOT, subject=name, issuer_name=name))
    assert (forged.is_self_issued, forged.signed_by_itself) == (True, False)


def test_time_left_is_negative_once_it_has_ended() -> None:
    ended = described(forge(mesh().issuing, start=NOW - 2 * HOUR, end=NOW - HOUR))
    assert (ended.time_left, ended.until_valid) == (-HOUR, None)


def test_a_certificate_that_is_still_to_begin_says_when() -> None:
    early = described(forge(mesh().issuing, start=NOW + HOUR, end=NOW + 2 * HOUR))
    assert (early.time_left, early.until_valid) == (2 * HOUR, HOUR)


def test_every_kind_of_key_has_a_label() -> None:
    def label(public_key: object) -> tuple[str, str, int | None]:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([]))
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + HOUR)
            .public_key(public_key)  # type: ignore[arg-type]
        )
        shown = described(builder.sign(key().private_key, hashes.SHA256()))
        assert shown.public_key
        return shown.public_key.algorithm, shown.public_key.label, shown.public_key.bits

    assert label(key("384", KeyAlgorithm.EC_P384).public_key) == ("EC", "ECDSA P-384", 384)
    assert label(ec.generate_private_key(ec.SECP256K1()).public_key()) == (
        "EC",
        "ECDSA secp256k1",
        256,
    )
    assert label(key("ed", KeyAlgorithm.ED25519).public_key) == ("ED25519", "Ed25519", None)
    assert label(ed448.Ed448PrivateKey.generate().public_key()) == ("ED448", "ED448", None)
    assert label(key("rsa", KeyAlgorithm.RSA_2048).public_key) == ("RSA", "RSA-2048", 2048)
    numbers = dsa.DSAParameterNumbers((1 << 1023) + 1, (1 << 159) + 1, 2)
    assert label(dsa.DSAPublicNumbers(4, numbers).public_key()) == ("DSA", "DSA", 1024)


def test_rsa_pss_names_its_hash() -> None:
    private_key = rsa.generate_private_key(65537, 2048)
    padding_ = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.sign(private_key, hashes.SHA384(), rsa_padding=padding_)
    (shown,) = describe(signed.public_bytes(DER), NOW)
    assert shown.signature_algorithm == "RSASSA-PSS with SHA-384"


def test_a_csr_is_described_with_what_it_asks_for() -> None:
    builder = csr_builder().add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"hunter2")
    (shown,) = describe(request(builder).public_bytes(PEM), NOW)
    assert (shown.what, shown.subject, shown.issuer, shown.serial) == (
        "CSR",
        "CN=backend",
        None,
        None,
    )
    assert shown.signed_by_itself is True
    assert shown.spiffe_ids == ("spiffe://mesh.local/service/backend",)
    assert shown.attributes == ("challengePassword (not shown)",)
    assert "hunter2" not in repr(shown)


def test_a_csr_of_another_key_fails_its_proof() -> None:
    der = bytearray(request().public_bytes(DER))
    der[-1] ^= 1
    (shown,) = describe(bytes(der), NOW)
    assert shown.signed_by_itself is False


def test_a_csr_whose_extensions_are_nonsense_is_still_described() -> None:
    good = request().public_bytes(DER)
    wanted = next(a.value for a in request().attributes)
    assert good.count(wanted) == 1
    (shown,) = describe(good.replace(wanted, b"\x1f" * len(wanted)), NOW)
    assert shown.what == "CSR"
    assert shown.remarks


def test_a_file_may_hold_many_things_and_keys_are_only_named() -> None:
    secret = key().to_pem()
    data = (
        secret
        + certificates_pem([mesh().leaf(), mesh().issuing.certificate])
        + request().public_bytes(PEM)
    )
    assert [shown.what for shown in describe(data, NOW)] == [
        "private key",
        "X.509-SVID",
        "issuing CA",
        "CSR",
    ]
    assert describe(secret, NOW) == (Description("private key"),)
    assert not describe(secret, NOW)[0].is_shown


def test_only_certificates_are_taken_for_a_chain() -> None:
    leaf = mesh().leaf()
    assert certificates(key().to_pem() + leaf.public_bytes(PEM)) == (leaf,)
    with pytest.raises(Malformed, match="no certificate, but private key"):
        certificates(key().to_pem())
    with pytest.raises(Malformed, match="no certificate, but CSR"):
        certificates(request().public_bytes(PEM))


def test_control_characters_in_names_are_escaped() -> None:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "ok\nverdict: valid\x1b[2J\u202e")]
    )
    shown = described(forge(mesh().issuing, subject=subject, uris=["spiffe://x/\r\ny"]))
    assert shown.subject == "CN=ok\\nverdict: valid\\x1b[2J\\u202e"
    assert shown.spiffe_ids == ("spiffe://x/\\r\\ny",)


def test_an_extension_that_appears_twice_is_remarked() -> None:
    leaf = mesh().leaf().public_bytes(DER)
    (outer,) = elements(leaf)
    tbs, *signature = elements(outer.content)
    *fields, listed = elements(tbs.content)
    (extensions,) = elements(listed.content)
    first = next(elements(extensions.content)).whole
    twice = element(0xA3, element(0x30, extensions.content + first))
    tbs_der = element(0x30, b"".join(f.whole for f in fields) + twice)
    (shown,) = describe(element(0x30, tbs_der + b"".join(s.whole for s in signature)), NOW)
    assert shown.remarks == ("its extension basicConstraints appears more than once",)


@pytest.mark.parametrize("which", ["root", "issuing", "leaf", "named"])
def test_openssl_reads_the_same_facts(which: str, tmp_path: Path) -> None:
    cert = {
        "root": mesh().root.certificate,
        "issuing": mesh().issuing.certificate,
        "leaf": mesh().leaf(),
        "named": forge(
            mesh().issuing,
            subject=x509.Name(
                [
                    x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'A, "B" + C; <D>'),
                ]
            ),
            replace={
                x509.SubjectAlternativeName: (
                    names("spiffe://mesh.local/a", "spiffe://mesh.local/b"),
                    True,
                )
            },
        ),
    }[which]
    file = tmp_path / "cert.pem"
    file.write_bytes(cert.public_bytes(PEM))
    command = [require_tool("openssl"), "x509", "-in", str(file), "-noout"]

    def openssl(*options: str) -> str:
        return subprocess.run(
            [*command, *options], capture_output=True, text=True, check=True
        ).stdout

    shown = described(cert)
    assert shown.serial is not None and shown.validity and shown.public_key
    brief = openssl(
        "-serial", "-fingerprint", "-sha256", "-subject", "-issuer", "-nameopt", "RFC2253"
    )
    assert f"serial={serial_hex(shown.serial).upper()}\n" in brief
    assert f"Fingerprint={hex_pairs(bytes.fromhex(shown.sha256))}\n" in brief
    assert f"subject={shown.subject}\n" in brief
    assert f"issuer={shown.issuer}\n" in brief
    assert hex_pairs(bytes.fromhex(shown.sha1)) in openssl("-fingerprint", "-sha1")
    text = openssl("-text")
    assert f"Version: {shown.version} (" in text
    assert f"Public-Key: ({shown.public_key.bits} bit)" in text
    assert f"{shown.validity.not_after:%b %e %H:%M:%S %Y} GMT" in text
    values = {extension.name: extension.values for extension in shown.extensions}
    assert f"CA:{'TRUE' if shown.is_ca else 'FALSE'}" in text
    assert ("TLS Web Server Authentication, TLS Web Client Authentication" in text) is (
        values.get("extKeyUsage") == ("serverAuth", "clientAuth")
    )
    assert ("Certificate Sign, CRL Sign" in text) is (
        values["keyUsage"] == ("keyCertSign", "cRLSign")
    )
    assert ", ".join(values["subjectAltName"]) in text
    assert values["subjectKeyIdentifier"][0] in text
    assert values["authorityKeyIdentifier"][0] in text
    assert text.count("X509v3 ") - text.count("X509v3 extensions") == len(shown.extensions)


@given(st.binary())
def test_arbitrary_bytes_break_only_as_malformed(data: bytes) -> None:
    with suppress(PkiError):
        # Well-formed DER of nothing in particular is told as that, and counts for nothing.
        assert not any(found.is_shown for found in describe(data, NOW))


@cache
def specimens() -> tuple[bytes, ...]:
    made = (mesh().root.certificate, mesh().leaf(), request())
    return tuple(thing.public_bytes(DER) for thing in made)


@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_certificates_and_csrs_are_described_or_malformed(
    which: int, changes: list[tuple[int, int]]
) -> None:
    mutated = bytearray(specimens()[which])
    for position, octet in changes:
        mutated[position % len(mutated)] = octet
    try:
        found = describe(bytes(mutated), NOW)
    except PkiError:
        return
    for shown in found:
        texts = [shown.subject, shown.issuer or "", *(shown.spiffe_ids or ()), *shown.remarks]
        texts += [value for extension in shown.extensions for value in extension.values]
        assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize("label", ["CERTIFICATE", "CERTIFICATE REQUEST"])
@pytest.mark.parametrize("tail", [b"\0\0", b"\x30\0"])
def test_what_follows_inside_a_block_is_told_in_a_sentence(label: str, tail: bytes) -> None:
    der = {
        "CERTIFICATE": mesh().leaf().public_bytes(serialization.Encoding.DER),
        "CERTIFICATE REQUEST": load_csr(build_csr(key(9), BACKEND)).der,
    }[label]
    (shown,) = describe(pem(label, der + tail), NOW)
    assert shown.is_shown
    (lost,) = shown.unreadable
    assert lost == (
        f"what follows the {name_of(label)} in its block at byte {len(der)} does not belong there, "
        "and is not shown (2 bytes)"
    )


def test_a_certificate_can_be_cut_anywhere() -> None:
    whole = mesh().leaf().public_bytes(DER)
    for size in range(1, len(whole)):
        with pytest.raises(Malformed):
            describe(whole[:size], NOW)


def test_time_left_is_told_as_of_now() -> None:
    (shown,) = describe(mesh().leaf().public_bytes(DER), NOW + timedelta(minutes=59))
    assert shown.time_left == timedelta(minutes=1)
