"""What other people's logs have signed: vectors of the first log, and checkpoints of logs that serve tiles."""

import base64
from collections.abc import Callable

import pytest
from cryptography import x509

from pki.ct.entry import SignedEntry, merkle_leaf_of, of_certificate, of_precertificate
from pki.ct.errors import BadSct
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log
from pki.ct.receipt import verify_sct
from pki.ct.sct import SignedCertificateTimestamp
from pki.ct.tree_head import WitnessKey, open_head, open_note
from pki.errors import Malformed
from pki.tlog.merkle import leaf_hash
from pki.tlog.note import Note
from tests.authorities import pem

#: test/testdata/ct-server-key-public.pem of the first log there was.
LOG_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmXg8sUUzwBYaWrRb+V0IopzQ6o3UyEJ04r5ZrRXGdpYM8K+hB0pXrGRLI0eeWz+3skXrS0IO83Ah"
    "A3GpRL6s6w=="
)
CA = """
MIIC0DCCAjmgAwIBAgIBADANBgkqhkiG9w0BAQUFADBVMQswCQYDVQQGEwJHQjEkMCIGA1UEChMbQ2VydGlmaWNhdGUgVHJhbnNwYXJlbmN5IENBMQ4w
DAYDVQQIEwVXYWxlczEQMA4GA1UEBxMHRXJ3IFdlbjAeFw0xMjA2MDEwMDAwMDBaFw0yMjA2MDEwMDAwMDBaMFUxCzAJBgNVBAYTAkdCMSQwIgYDVQQK
ExtDZXJ0aWZpY2F0ZSBUcmFuc3BhcmVuY3kgQ0ExDjAMBgNVBAgTBVdhbGVzMRAwDgYDVQQHEwdFcncgV2VuMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCB
iQKBgQDVimhTYhCicRmTbneDIRgcKkATxtB7jHbrkVfT0PtLO1FuzsvRyY2RxS90P6tjXVUJnNE6uvMa5UFEJFGnTHgW8iQ8+EjPKDHM5nugSlojgZ88
ujfmJNnDvbKZuDnd/iYx0ss6hPx7srXFL8/BT/9Ab1zURmnLsvfP34b7arnRsQIDAQABo4GvMIGsMB0GA1UdDgQWBBRfnYgNyHPmVNT4DdjmsMEktEfD
VTB9BgNVHSMEdjB0gBRfnYgNyHPmVNT4DdjmsMEktEfDVaFZpFcwVTELMAkGA1UEBhMCR0IxJDAiBgNVBAoTG0NlcnRpZmljYXRlIFRyYW5zcGFyZW5j
eSBDQTEOMAwGA1UECBMFV2FsZXMxEDAOBgNVBAcTB0VydyBXZW6CAQAwDAYDVR0TBAUwAwEB/zANBgkqhkiG9w0BAQUFAAOBgQAGCMxKbWTyIF4UbASy
dvkrDvqUpdryOvw4BmBtOZDQoeojPUApV2lGOwRmYef6HReZFSCa6i4Kd1F2QRIn18ADB8dHDmFYT9czQiRyf1HWkLxHqd81TbD26yWVXeGJPE3VICsk
ovPkQNJ0tU4b03YmnKliibduyqQQkOFPOwqULg==
"""
CERTIFICATE = """
MIICyjCCAjOgAwIBAgIBBjANBgkqhkiG9w0BAQUFADBVMQswCQYDVQQGEwJHQjEkMCIGA1UEChMbQ2VydGlmaWNhdGUgVHJhbnNwYXJlbmN5IENBMQ4w
DAYDVQQIEwVXYWxlczEQMA4GA1UEBxMHRXJ3IFdlbjAeFw0xMjA2MDEwMDAwMDBaFw0yMjA2MDEwMDAwMDBaMFIxCzAJBgNVBAYTAkdCMSEwHwYDVQQK
ExhDZXJ0aWZpY2F0ZSBUcmFuc3BhcmVuY3kxDjAMBgNVBAgTBVdhbGVzMRAwDgYDVQQHEwdFcncgV2VuMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKB
gQCx+jeTYRH4eS2iCBw/5BklAIUx3H8sZXvZ4d5HBBYLTJ8Z1UraRHBATBxRNBuPH3U43d0o2aykg2n8VkbdzHYX+BaKrltB1DMx/KLa38gE1XIIlJBh
+e75AspHzojGROAA8G7uzKvcndL2iiLMsJ3Hbg28c1J3ZbGjeoxnYlPcwQIDAQABo4GsMIGpMB0GA1UdDgQWBBRqDZgqO2LES20u9Om7egGqnLeY4jB9
BgNVHSMEdjB0gBRfnYgNyHPmVNT4DdjmsMEktEfDVaFZpFcwVTELMAkGA1UEBhMCR0IxJDAiBgNVBAoTG0NlcnRpZmljYXRlIFRyYW5zcGFyZW5jeSBD
QTEOMAwGA1UECBMFV2FsZXMxEDAOBgNVBAcTB0VydyBXZW6CAQAwCQYDVR0TBAIwADANBgkqhkiG9w0BAQUFAAOBgQAXHNhKrEFKmgMPIqrI9oiwgbJw
m4SLTlURQGzXB/7QKFl6n678Lu4peNYzqqwU7TI1GX2ofg9xuIdfGsnniygXSd3t0Afj7PUGRfjL9mclbNahZHteEyA7uFgt59Zpb2VtHGC5X0Vrf88z
hXGQjxxpcn0kxPzNJJKVeVgU0drA5g==
"""
PRECERTIFICATE = """
MIIC3zCCAkigAwIBAgIBBzANBgkqhkiG9w0BAQUFADBVMQswCQYDVQQGEwJHQjEkMCIGA1UEChMbQ2VydGlmaWNhdGUgVHJhbnNwYXJlbmN5IENBMQ4w
DAYDVQQIEwVXYWxlczEQMA4GA1UEBxMHRXJ3IFdlbjAeFw0xMjA2MDEwMDAwMDBaFw0yMjA2MDEwMDAwMDBaMFIxCzAJBgNVBAYTAkdCMSEwHwYDVQQK
ExhDZXJ0aWZpY2F0ZSBUcmFuc3BhcmVuY3kxDjAMBgNVBAgTBVdhbGVzMRAwDgYDVQQHEwdFcncgV2VuMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKB
gQC+75jnwmh3rjhfdTJaDB0ym+3xj6r015a/BH634c4VyVui+A7kWL19uG+KSyUhkaeb1wDDjpwDibRc1NyaEgqyHgy0HNDnKAWkEM2cW9tdSSdyba8X
EPYBhzd+olsaHjnu0LiBGdwVTcaPfajjDK8VijPmyVCfSgWwFAn/Xdh+tQIDAQABo4HBMIG+MB0GA1UdDgQWBBQgMVQa8lwF/9hli2hDeU9ekDb3tDB9
BgNVHSMEdjB0gBRfnYgNyHPmVNT4DdjmsMEktEfDVaFZpFcwVTELMAkGA1UEBhMCR0IxJDAiBgNVBAoTG0NlcnRpZmljYXRlIFRyYW5zcGFyZW5jeSBD
QTEOMAwGA1UECBMFV2FsZXMxEDAOBgNVBAcTB0VydyBXZW6CAQAwCQYDVR0TBAIwADATBgorBgEEAdZ5AgQDAQH/BAIFADANBgkqhkiG9w0BAQUFAAOB
gQACocOeAVr1Tf8CPDNgh1//NDdVLx8JAb3CVDFfM3K3I/sV+87MTfRxoM5NjFRlXYSHl/soHj36u0YtLGhLBW/qe2O0cP8WbjLURgY1s9K8bagkmyYw
5x/DTwjyPdTuIo+PdPY9eGMR3QpYEUBfkGzKLC0+6/yBmWTr2M98CIY/vg==
"""
SCT = bytes.fromhex(
    "00df1c2ec11500945247a96168325ddc5c7959e8f7c6d388fc002e0bbd3f74d7640000013ddb27ded900000403004730450220606e10ae5c2d5a"
    "1b0aed49dc4937f48de71a4e9784e9c208dfbfe9ef536cf7f2022100beb29c72d7d06d61d06bdb38a069469aa86fe12e18bb7cc45689a2c0187e"
    "f5a5"
)
PRE_SCT = bytes.fromhex(
    "00df1c2ec11500945247a96168325ddc5c7959e8f7c6d388fc002e0bbd3f74d7640000013ddb27df9300000403004730450220482f6751af35db"
    "a65436be1fd6640f3dbf9a41429495924530288fa3e5e23e06022100e4edc0db3ac572b1e2f5e8ab6a680653987dcf41027dfeffa105519d89ed"
    "bf08"
)
LEAF_HASH = "BKZLZGMbAnDW0gQWjNJNCyS2IgweWn76YW3tFlu3AuY="
PRE_LEAF_HASH = "mbk+d5FDW3oNZJCbOi828rqC3hf+qhigTWVGcXEZq1U="


#: That CA's own certificate has the serial number 0.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")


def loaded(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("entry", "sct", "hashed"),
    [
        (lambda: of_certificate(loaded(CERTIFICATE)), SCT, LEAF_HASH),
        (lambda: of_precertificate(loaded(PRECERTIFICATE), loaded(CA)), PRE_SCT, PRE_LEAF_HASH),
    ],
    ids=["certificate", "precertificate"],
)
def test_the_first_log_has_signed_these(
    entry: Callable[[], SignedEntry], sct: bytes, hashed: str
) -> None:
    key = LogKey.parse(LOG_KEY)
    receipt = SignedCertificateTimestamp.parse(sct)
    verify_sct(receipt, entry(), key)
    leaf = merkle_leaf_of(entry(), receipt.timestamp, receipt.extensions)
    assert base64.b64encode(leaf_hash(leaf)).decode() == hashed


def test_the_two_receipts_are_not_for_each_other() -> None:
    with pytest.raises(BadSct, match="for something else"):
        verify_sct(
            SignedCertificateTimestamp.parse(PRE_SCT),
            of_certificate(loaded(CERTIFICATE)),
            LogKey.parse(LOG_KEY),
        )


def test_each_call_wants_its_own_kind() -> None:
    with pytest.raises(Malformed, match="add-pre-chain"):
        of_certificate(loaded(PRECERTIFICATE))
    with pytest.raises(Malformed, match="no precertificate"):
        of_precertificate(loaded(CERTIFICATE), loaded(CA))


ROME_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAXM8Ld9qn64g1zVFDh5FtgxS3zj5sqQDwYMs3wrBV3MCBiFhK/iRLxdKF4YsAcJaEglMlu4Lewvz"
    "xs0xO2uwEw=="
)
ROME = (
    "rome.ct.filippo.io/2024h1\n115474666\n2q1K6aiIJR+F7TyhiWOghoWOjY0/3dVBLsBbAvB4xCw=\n\n"
    "\u2014 rome.ct.filippo.io/2024h1 ePSrrgAAAY5+gVlSBAMARzBFAiEAv8bOMzo3Ed/GbU9fzzJvaStX6i8xTsmEF+NqvpGhIO0CIEn1X+zz"
    "VEerdix64GEn97XCXObA2G5JQ8UDDqCKdG5m\n"
)
SUNLIGHT_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPIcer7RB32jt4bTEbhgUKLKvOctFD+I2hoDItFxUBlJiGFvftBuRk3fO7e1T7gC2ekyfL7XoO2oN"
    "/ObcZyc4EA=="
)
SUNLIGHT = (
    "rome2026h1.example.org\n300\nlCkHUpkmVBEms2r2T1K6Og69+wUuuN3MIEW1/ezu2v0=\n\n"
    "\u2014 rome2026h1.example.org kVB1JgAAAZtxtEwABAMARzBFAiEAi+mTa2xjL1IdWpH82OeciGsGvwRAP+f1WkfKaSZCfFECIHoNPZ/Q3y6U"
    "NzvKOO9cuLr6V16vPNfhwhle9f6r5H/Z\n"
)


def test_a_checkpoint_of_a_log_that_serves_tiles_is_opened() -> None:
    url = "https://rome.ct.filippo.io/2024h1/"
    log = Log("rome", LogKey.parse(ROME_KEY), url, url)
    head = open_note(ROME, log)
    assert (head.origin, head.size, head.timestamp) == (
        "rome.ct.filippo.io/2024h1",
        115474666,
        1711519390034,
    )
    assert str(Note.parse(ROME)) == ROME
    other = open_head(SUNLIGHT, "rome2026h1.example.org", LogKey.parse(SUNLIGHT_KEY))
    assert (other.size, other.timestamp) == (300, 1767139200000)
    assert LogKey.parse(SUNLIGHT_KEY).log_id == base64.b64decode(
        "CKIDXIl+znJaHUyhzhNVaSxIUov59RCXLh3fJXJExnk="
    )


def test_the_key_of_a_witness_is_read_as_others_write_it() -> None:
    text = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert str(WitnessKey.parse(text)) == text
