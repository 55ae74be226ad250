"""One reader of PEM for everything, as tolerant as people's hands demand, and silent about what it has read."""

import base64
import re
import subprocess
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import example, given
from hypothesis import strategies as st

from pki.crl.crl import crls_in
from pki.der import SEQUENCE, element, elements
from pki.errors import Malformed, PkiError
from pki.issuing.csr import build_csr, load_csr
from pki.keys import MemoryKey, UnusableKey, spki_der
from pki.keys.pkcs8 import is_encrypted, read_pem
from pki.ocsp.evidence import answers_from
from pki.pem import Section, listed, sections
from pki.svid.x509svid import certificates_pem, load_certificates
from tests.authorities import BACKEND, NOW, key, mesh, pem, sign_crl
from tests.tools import require_tool

LEAF, ISSUER = mesh().leaf(now=NOW), mesh().issuing.certificate
CHAIN = certificates_pem([LEAF, ISSUER])
KEY = key().to_pem()
OLD_KEY = key().private_key.private_bytes(
    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
)
LOCKED = key().private_key.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
)
OLD_LOCKED = key().private_key.private_bytes(
    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"word")
)
CSR = build_csr(key(), BACKEND)
CRL_DER = sign_crl(mesh().issuing)
CRL = pem(CRL_DER, "X509 CRL")

#: What becomes of a file between a CA and a service: each is still read.
HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR only": lambda data: data.replace(b"\n", b"\r"),
    "CRCRLF": lambda data: data.replace(b"\n", b"\r\r\n"),
    "no line break at the end": lambda data: data.rstrip(b"\n"),
    "line breaks lost": lambda data: data.replace(b"\n", b""),
    "line breaks to spaces": lambda data: data.replace(b"\n", b" "),
    "line breaks as two characters": lambda data: data.replace(b"\n", b"\\n"),
    "blocks glued": lambda data: data.replace(b"-----\n-----", b"----------"),
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "BOMs within": lambda data: data.replace(b"-----BEGIN", b"\xef\xbb\xbf-----BEGIN"),
    "text around": lambda data: b"Bag Attributes\n  subject=/CN=x\n0" + data + b"\nthat is all\n",
    "text on the same line": lambda data: b"key: '" + data.strip() + b"' # from the CA",
    "trailing spaces": lambda data: data.replace(b"\n", b"  \t\n"),
    "indented": lambda data: b"  " + data.replace(b"\n", b"\n      "),
    "empty lines": lambda data: data.replace(b"\n", b"\n\n"),
    "spaces that do not break": lambda data: data.replace(b"\n", b"\xc2\xa0\n"),
    "labels squeezed": lambda data: re.sub(
        rb"(?<=-----)(BEGIN|END)[A-Z0-9 ]+", lambda found: found[0].replace(b" ", b""), data
    ),
    "lines of another length": lambda data: re.sub(rb"(?m)^([A-Za-z0-9+/=]{20})", rb"\1\n", data),
    "NULs after it": lambda data: data + bytes(100),
}
PLAIN_TOO = {**HARMLESS, "as it was": lambda data: data}


@pytest.mark.parametrize("harm", PLAIN_TOO)
def test_everything_is_read_from_every_file_that_is_not_damaged(harm: str) -> None:
    do = PLAIN_TOO[harm]
    assert load_certificates(do(CHAIN)) == (LEAF, ISSUER)
    for pem_key in (KEY, OLD_KEY, KEY + CHAIN, CHAIN + OLD_KEY):
        assert spki_der(MemoryKey.from_pem(do(pem_key)).public_key) == spki_der(key().public_key)
        assert not is_encrypted(do(pem_key))
    for pem_key in (LOCKED, OLD_LOCKED, CHAIN + LOCKED):
        assert is_encrypted(do(pem_key))
        opened = MemoryKey.from_pem(do(pem_key), b"word")
        assert spki_der(opened.public_key) == spki_der(key().public_key)
    assert load_csr(do(CSR)) == load_csr(CSR)
    assert crls_in(do(CRL)) == (CRL_DER,)


def test_everything_is_read_in_der() -> None:
    der = Encoding.DER
    assert load_certificates(LEAF.public_bytes(der)) == (LEAF,)
    assert load_certificates(LEAF.public_bytes(der) + ISSUER.public_bytes(der)) == (LEAF, ISSUER)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        plain = key().private_key.private_bytes(der, form, NoEncryption())
        assert spki_der(MemoryKey.from_pem(plain).public_key) == spki_der(key().public_key)
        assert not is_encrypted(plain)
    locked = key().private_key.private_bytes(
        der, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    assert is_encrypted(locked)
    assert spki_der(MemoryKey.from_pem(locked, b"word").public_key) == spki_der(key().public_key)
    assert crls_in(CRL_DER) == (CRL_DER,)


def test_a_key_after_its_parameters_is_read() -> None:
    parameters = pem(bytes.fromhex("06082a8648ce3d030107"), "EC PARAMETERS")
    found = MemoryKey.from_pem(parameters + OLD_KEY)
    assert spki_der(found.public_key) == spki_der(key().public_key)


@pytest.mark.interop(
    "tests/pki/test_pem.py::test_everything_is_read_from_every_file_that_is_not_damaged"
)
@pytest.mark.parametrize("harm", ["line breaks lost", "blocks glued", "line breaks to spaces"])
def test_openssl_reads_what_a_section_writes(harm: str) -> None:
    (section,) = sections(HARMLESS[harm](OLD_LOCKED))
    asked = [require_tool("openssl"), "pkey", "-passin", "pass:word", "-noout"]
    assert subprocess.run(asked, input=section.pem()).returncode == 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("data", [CHAIN, KEY, CSR, CRL])
def test_wide_text_is_told_with_the_cure(encoding: str, data: bytes) -> None:
    wide = data.decode().encode(encoding)
    for read in (load_certificates, read_pem, load_csr, crls_in):
        with pytest.raises(PkiError, match=rf"{encoding[:6].upper()}.*PowerShell.*iconv"):
            read(wide)


READERS: dict[str, tuple[Callable[[bytes], object], str]] = {
    "certificates": (load_certificates, "no certificates"),
    "key": (read_pem, "no private key"),
    "csr": (load_csr, "CSR"),
    "crl": (crls_in, "no CRL"),
    "ocsp": (lambda data: answers_from(data, [LEAF, ISSUER], NOW), "no OCSP response"),
}
FOUND = {
    "certificates": (CHAIN, "a certificate"),
    "key": (KEY, "a private key"),
    "csr": (CSR, "a CSR"),
    "crl": (CRL, "a CRL"),
    "locked": (LOCKED, "an encrypted private key"),
    "public": (pem(spki_der(key().public_key), "PUBLIC KEY"), "a public key"),
    "p7b": (pem(b"0\0", "PKCS7"), "a PKCS #7 file"),
    "trusted": (pem(b"0\0", "TRUSTED CERTIFICATE"), "a certificate with OpenSSL's trust settings"),
}


@pytest.mark.parametrize("found", FOUND)
@pytest.mark.parametrize("wanted", READERS)
def test_another_kind_of_file_is_told_by_what_it_is(wanted: str, found: str) -> None:
    if wanted == found or (wanted, found) == ("key", "locked"):
        return
    read, missed = READERS[wanted]
    data, said = FOUND[found]
    with pytest.raises(PkiError, match=f"{missed}.*but {said}"):
        read(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"keys": []}', "JSON"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"ssh-ed25519 AAAA me", "SSH"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "ZIP"),
        (CHAIN.replace(b"BEGIN", b"begin"), "dashes or capitals"),
        (CHAIN.replace(b"-----", b"----"), "lost some of its dashes"),
        (base64.b64encode(LEAF.public_bytes(Encoding.DER)), "base64 alone"),
        (base64.b64encode(CHAIN), "base64 alone"),
        (b"\0\0\0\0", "blanks or NULs"),
    ],
)
def test_what_is_no_pem_at_all_is_told_as_far_as_it_can_be_seen(data: bytes, said: str) -> None:
    for read in (load_certificates, read_pem, load_csr):
        with pytest.raises(PkiError, match=said):
            read(data)


def test_a_key_of_openssh_is_told_with_the_cure() -> None:
    with pytest.raises(UnusableKey, match=r"OpenSSH's format.*ssh-keygen -p -m PKCS8"):
        read_pem(pem(b"openssh-key-v1\0", "OPENSSH PRIVATE KEY"))


def test_of_many_certificates_the_damaged_one_is_named() -> None:
    damaged = pem(b"0\x03\x02\x01\x01")
    with pytest.raises(
        Malformed, match=r"roots\.pem: the certificate 2 of 3 in it cannot be decoded"
    ):
        load_certificates(
            certificates_pem([LEAF]) + damaged + certificates_pem([LEAF]), "roots.pem"
        )


LABELS = re.compile(r"[A-Z0-9 ]{0,64}")


@given(st.binary() | st.binary().map(lambda text: b"-----BEGIN " + text + b"-----\nAAAA"))
@example(b"-----BEGIN \x1b[2J-----\n-----END \x1b[2J-----")
@example(b"-----BEGIN EC PRIVATE KEY-----" + OLD_KEY[31:].replace(b"\n", b""))
def test_a_label_is_capitals_digits_and_spaces(data: bytes) -> None:
    try:
        found = sections(data)
    except Malformed as error:
        label = re.search("PEM block (.*) has no end", str(error))
        assert label is None or LABELS.fullmatch(label[1])
    else:
        assert all(LABELS.fullmatch(section.label) for section in found)


def test_no_repr_shows_content() -> None:
    assert "secret" not in repr(Section("PRIVATE KEY", b"secret", (b"secret",)))


def test_a_list_of_kinds_is_a_phrase() -> None:
    assert listed(["CERTIFICATE", "CERTIFICATE", "X509 CRL", "EC PRIVATE KEY"]) == (
        "a certificate, a CRL and a private key"
    )
    assert listed(["THING"]) == "something of the kind THING"


#: Certificates that openssl shows, and a strict reader does not take: each breaks one rule.
STRICT = {
    # ECDSA's algorithm with a NULL beside it (RFC 5480 section 2.1.1).
    "signature algorithm": (
        b"\x30\x0a\x06\x08*\x86H\xce=\x04\x03\x02",
        b"\x30\x0c\x06\x08*\x86H\xce=\x04\x03\x02\x05\x00",
    ),
    # A PrintableString with an @ in it (X.680 section 41.4).
    "names": (b"\x0c\x07backend", b"\x13\x07back@nd"),
}


def with_lengths(parts: list[bytes]) -> bytes:
    return element(SEQUENCE, b"".join(parts))


@pytest.mark.parametrize("place", STRICT)
def test_what_is_whole_is_not_called_damaged(place: str) -> None:
    old, new = STRICT[place]
    (outer,) = elements(LEAF.public_bytes(Encoding.DER))
    signed, algorithm, signature = elements(outer.content)
    fields = list(elements(signed.content))
    changed = [
        element(field.tag, field.content.replace(old, new))
        if field.tag != SEQUENCE
        else field.whole
        for field in fields
    ]
    for at, part in enumerate(fields):
        if old == part.whole:
            changed[at] = new
        elif old in part.content and part.tag == SEQUENCE and old[0] != SEQUENCE:
            changed[at] = part.whole.replace(old, new)
    der = with_lengths([with_lengths(changed), algorithm.whole, signature.whole])
    with pytest.raises(Malformed, match=rf"the certificate in it is whole.*its {place}") as refused:
        load_certificates(pem(der))
    assert "damaged" not in str(refused.value)
