"""A root by its fingerprint: however it is written, and only if it is one."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError, Refused
from pki.svid.pin import BadFingerprint, Fingerprint, RootPin
from tests.authorities import MESH, der, forge_root, mesh

ROOT = mesh().root.certificate
DIGITS = ROOT.fingerprint(hashes.SHA256()).hex()
PAIRS = ":".join(DIGITS[i : i + 2] for i in range(0, 64, 2))


@pytest.mark.parametrize("digits", [DIGITS, PAIRS], ids=["digits", "pairs"])
@pytest.mark.parametrize("prefix", ["", "sha256:", "SHA256:"])
def test_a_fingerprint_is_read_as_people_write_it(prefix: str, digits: str) -> None:
    for text in (digits, digits.upper()):
        assert Fingerprint.parse(prefix + text) == Fingerprint.of(ROOT)
    assert str(Fingerprint.of(ROOT)) == f"sha256:{DIGITS}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        DIGITS[:-1],
        DIGITS + "0",
        DIGITS + "\n",
        f" {DIGITS}",
        f"sha1:{DIGITS}",
        f"sha256:sha256:{DIGITS}",
        f"sha256 Fingerprint={PAIRS}",
        PAIRS[:-1],
        PAIRS + ":",
        PAIRS.replace(":", "::"),
        PAIRS.replace(":", "", 1),
        "\u017fha256:" + DIGITS,
        "\u0660" * 64,
        "g" * 64,
    ],
    ids=map(str, range(16)),
)
def test_what_is_no_fingerprint_is_told_so_on_one_line(text: str) -> None:
    with pytest.raises(BadFingerprint, match="write sha256: and 64 digits of hex") as refused:
        Fingerprint.parse(text)
    assert str(refused.value).isprintable()


@given(st.binary(min_size=32, max_size=32))
def test_it_is_read_back_as_it_is_written(digest: bytes) -> None:
    assert Fingerprint.parse(str(Fingerprint(digest))) == Fingerprint(digest)


@given(st.text() | st.from_regex(r"(sha256:)?[0-9a-fA-F:]*", fullmatch=True))
def test_no_text_raises_anything_but_an_error_of_ours(text: str) -> None:
    try:
        Fingerprint.parse(text)
    except PkiError as error:
        assert str(error).isprintable()


def test_the_root_that_was_meant_is_a_bundle() -> None:
    pin = RootPin(Fingerprint.of(ROOT), MESH)
    assert pin.objection(der(ROOT)) is None
    assert pin.bundle(der(ROOT)) == mesh().bundle


def test_another_one_is_told_with_both_fingerprints() -> None:
    other = forge_root().certificate
    problem = RootPin(Fingerprint.of(ROOT), MESH).objection(der(other))
    assert problem is not None
    assert problem.code == "wrong-fingerprint"
    assert DIGITS in problem.detail
    assert str(Fingerprint.of(other)) in problem.detail
    with pytest.raises(Refused, match="wrong-fingerprint"):
        RootPin(Fingerprint.of(ROOT), MESH).bundle(der(other))


@given(st.binary() | st.integers(0, len(der(ROOT)) - 1).map(lambda at: der(ROOT)[:at]))
def test_no_bytes_are_taken_for_it(data: bytes) -> None:
    assert RootPin(Fingerprint.of(ROOT), MESH).objection(data) is not None


def test_a_root_that_names_nothing_decodable_is_no_root_of_ours() -> None:
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\xff")
    root = forge_root(replace={x509.SubjectAlternativeName: (broken, False)}).certificate
    problem = RootPin(Fingerprint.of(root), MESH).objection(der(root))
    assert problem is not None
    assert problem.code == "not-a-ca"
