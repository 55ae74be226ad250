"""What openssl and certtool show of an odd thing, we show too, and the same facts."""

import ssl
import subprocess
from pathlib import Path

import pytest

from pki.der import blocks
from pki.inspect.describe import describe
from pki.inspect.description import Description
from pki.inspect.name_text import hex_pairs
from pki.pem import CERTIFICATE
from pki.serial import serial_hex
from tests.authorities import NOW, pem
from tests.pki.inspect.oddities import ODDITIES, Oddity
from tests.tools import require_tool

#: The others are for make interop.
_QUICK = ("nothing", "T61String", "CSR without attributes", "CRL with reasons")
_CERTTOOL = {"x509": "--certificate-info", "req": "--crq-info", "crl": "--crl-info"}
#: In DER their outermost length is another one, and so are the digests that OpenSSL makes of them.
_ENCODED_ANEW = ("length in BER", "length that comes at the end")

each = pytest.mark.parametrize(
    "which",
    [
        which if which in _QUICK else pytest.param(which, marks=pytest.mark.interop)
        for which in ODDITIES
    ],
)


def openssl(command: str, data: bytes, *options: str) -> str | None:
    """What it says; None where it refuses."""
    done = subprocess.run(
        [require_tool("openssl"), command, "-noout", *options], input=data, capture_output=True
    )
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def facts(shown: Description) -> str:
    """A certificate's as openssl prints them."""
    assert shown.serial is not None
    sign = "-" if shown.serial < 0 else ""
    ends = [
        f"{moment:%Y-%m-%d %H:%M:%SZ}" if moment else "Bad time value"
        for moment in (shown.not_before, shown.not_after)
    ]
    return (
        f"serial={sign}{serial_hex(abs(shown.serial)).upper()}\n"
        f"notBefore={ends[0]}\nnotAfter={ends[1]}\n"
        f"sha256 Fingerprint={hex_pairs(bytes.fromhex(shown.sha256))}\n"
    )


def names(command: str, data: bytes) -> str | None:
    """The subject, and the issuer where there is one."""
    options = ("-nameopt", "RFC2253,utf8,-esc_msb")
    which = ("-subject", "-issuer") if command == "x509" else ("-subject",)
    return openssl(command, data, *which, *options)


def agrees(shown: Description, data: bytes, *, digests: bool = True) -> None:
    options = ("-serial", "-dates", "-dateopt", "iso_8601", "-fingerprint", "-sha256")
    told = openssl("x509", data, *options)
    if told is not None:
        told, ours = told.replace("\\\n", ""), facts(shown)
        assert told == ours or (not digests and told.splitlines()[:3] == ours.splitlines()[:3])


@each
def test_openssl_shows_no_more_and_the_same(which: str) -> None:
    oddity: Oddity = ODDITIES[which]
    (shown,) = describe(oddity.pem, NOW)
    text = openssl(oddity.openssl, oddity.pem, "-text")
    if text is None:
        return
    if oddity.openssl == "crl":
        told = dict(shown.facts)
        assert text.count("Serial Number: ") == int(told["entries"][0])
        return
    said = names(oddity.openssl, oddity.pem)
    assert said is not None
    subject = said.splitlines()[0].removeprefix("subject=")
    assert subject.lower() == shown.subject.lower()  # hex comes in either case
    assert f"Version: {shown.version} (" in text or "Unknown" in text
    if oddity.openssl == "x509":
        agrees(shown, oddity.pem, digests=which not in _ENCODED_ANEW)


@each
def test_what_certtool_shows_is_shown(which: str, tmp_path: Path) -> None:
    oddity: Oddity = ODDITIES[which]
    file = tmp_path / "odd.pem"
    file.write_bytes(oddity.pem)
    command = [require_tool("certtool"), _CERTTOOL[oddity.openssl], "--infile", str(file)]
    done = subprocess.run(command, capture_output=True)
    (shown,) = describe(oddity.pem, NOW)
    assert shown.is_shown
    if done.returncode == 0 and shown.serial:
        told = done.stdout.decode("utf-8", "replace")
        assert f"Serial Number (hex): {serial_hex(shown.serial)}" in told or shown.serial < 0


@pytest.mark.interop(
    "tests/pki/inspect/test_outside_readers.py::test_openssl_shows_no_more_and_the_same"
)
def test_the_roots_of_this_system_are_shown_as_openssl_shows_them() -> None:
    file = ssl.get_default_verify_paths().cafile
    if file is None:
        pytest.skip("this system keeps its roots in no one file")
    data = Path(file).read_bytes()
    held = [block for block in blocks(data) if block.label == CERTIFICATE]
    described = describe(data, NOW)
    assert len(described) == len(held)
    for block, shown in zip(held, described, strict=True):
        assert shown.is_shown and not shown.unreadable
        alone = pem(block.der)
        agrees(shown, alone)
        said = names("x509", alone)
        assert said == f"subject={shown.subject}\nissuer={shown.issuer}\n"
