"""Certificates, CSRs and CRLs that are odd in one way each: what strict libraries refuse and people are sent."""

from collections.abc import Callable

from attrs import frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pki.der import (
    BIT_STRING,
    CERTIFICATE,
    CRL,
    ENUMERATED,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    REQUEST,
    SEQUENCE,
    UTC_TIME,
    element,
    integer,
    oid_content,
    pem,
)
from pki.keys import spki_der
from tests.authorities import key

SET, NULL, BOOLEAN, UTF8, PRINTABLE, T61, IA5, BMP = 0x31, 5, 1, 0x0C, 0x13, 0x14, 0x16, 0x1E
ID = "spiffe://mesh.local/service/shop"
BEGIN = element(UTC_TIME, b"260101000000Z")
END = element(UTC_TIME, b"360101000000Z")
V3 = element(0xA0, integer(2))


def seq(*parts: bytes) -> bytes:
    return element(SEQUENCE, b"".join(parts))


def oid(dotted: str) -> bytes:
    return element(OBJECT_IDENTIFIER, oid_content(dotted))


def attribute(dotted: str, value: bytes) -> bytes:
    return element(SET, seq(oid(dotted), value))


def name(value: bytes = element(UTF8, b"example"), kind: str = "2.5.4.3") -> bytes:
    """A distinguished name with one attribute."""
    return seq(attribute(kind, value))


def extension(dotted: str, value: bytes, critical: bytes = b"") -> bytes:
    return seq(oid(dotted), critical, element(OCTET_STRING, value))


def alternative_names(*names: bytes) -> bytes:
    return extension("2.5.29.17", seq(*names))


ECDSA = seq(oid("1.2.840.10045.4.3.2"))
ECDSA_NULL = seq(oid("1.2.840.10045.4.3.2"), element(NULL, b""))
URI = element(0x86, ID.encode())
NAMED = alternative_names(URI)


def signed(body: bytes, algorithm: bytes = ECDSA) -> bytes:
    private_key = key().private_key
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    signature = private_key.sign(body, ec.ECDSA(hashes.SHA256()))
    return seq(body, algorithm, element(BIT_STRING, b"\0" + signature))


def certificate(
    *,
    version: bytes = V3,
    serial: bytes = integer(0x1234),
    algorithm: bytes = ECDSA,
    issuer: bytes = name(),
    dates: bytes = seq(BEGIN, END),
    subject: bytes = name(),
    extensions: tuple[bytes, ...] = (NAMED,),
) -> bytes:
    listed = element(0xA3, seq(*extensions)) if extensions else b""
    spki = spki_der(key().public_key)
    body = seq(version, serial, algorithm, issuer, dates, subject, spki, listed)
    return signed(body, algorithm)


def request(
    *,
    version: bytes = integer(0),
    subject: bytes = name(),
    algorithm: bytes = ECDSA,
    attributes: bytes = element(0xA0, b""),
) -> bytes:
    return signed(seq(version, subject, spki_der(key().public_key), attributes), algorithm)


def crl_entry(serial: int, *rest: bytes) -> bytes:
    return seq(integer(serial), BEGIN, *rest)


def crl(*entries: bytes, extensions: tuple[bytes, ...] = (), until: bytes = END) -> bytes:
    listed = element(0xA0, seq(*extensions)) if extensions else b""
    return signed(seq(integer(1), ECDSA, name(), BEGIN, until, seq(*entries), listed))


def wanted(*extensions: bytes, kind: str = "1.2.840.113549.1.9.14") -> bytes:
    """The attributes of a CSR that asks for extensions."""
    return element(0xA0, seq(oid(kind), element(SET, seq(*extensions) if extensions else b"")))


def long_lengths(der: bytes) -> bytes:
    """With an outermost length that has an octet more than it must."""
    octets = len(der) - 4
    return b"\x30\x83" + octets.to_bytes(3, "big") + der[4:]


@frozen
class Oddity:
    """One file."""

    label: str
    der: bytes
    shows: tuple[str, ...] = ()
    """What is seen of it."""
    remark: str = ""
    """In its remarks."""
    is_whole: bool = True
    """Whether all of it can be read."""
    openssl: str = "x509"
    """The command that shows it, too."""
    certtool: bool = False
    """Whether GnuTLS shows it, too."""

    @property
    def pem(self) -> bytes:
        return pem(self.label, self.der)


def _certificate(*shows: str, remark: str = "", whole: bool = True, **fields: object) -> Oddity:
    made: Callable[..., bytes] = certificate
    return Oddity(CERTIFICATE, made(**fields), shows, remark, whole)


def _request(*shows: str, remark: str = "", whole: bool = True, **fields: object) -> Oddity:
    made: Callable[..., bytes] = request
    return Oddity(REQUEST, made(**fields), shows, remark, whole, "req")


def _crl(*shows: str, remark: str = "", whole: bool = True, der: bytes) -> Oddity:
    return Oddity(CRL, der, shows, remark, whole, "crl")


_GOOD = certificate()
#: By what is odd.
ODDITIES = {
    "nothing": _certificate("CN=example", ID),
    "version 4": _certificate(ID, version=element(0xA0, integer(3)), remark="it is of version 4"),
    "version 1 with extensions": _certificate(ID, version=b"", remark="not of version 3"),
    "parameters of ECDSA": _certificate(ID, algorithm=ECDSA_NULL, remark="has parameters"),
    "serial number 0": _certificate(serial=integer(0), remark="not positive"),
    "negative serial number": _certificate("-01", serial=integer(-1), remark="not positive"),
    "long serial number": _certificate(serial=integer(1 << 300), remark="more than 20 octets"),
    "time without seconds": _certificate(
        "2026-01-01T00:00:00Z",
        dates=seq(element(UTC_TIME, b"2601010000Z"), END),
        remark="its beginning (notBefore) at byte",
    ),
    "time with an offset": _certificate(
        "2025-12-31T23:00:00Z",
        dates=seq(element(UTC_TIME, b"260101000000+0100"), END),
        remark="its beginning (notBefore) at byte",
    ),
    "no time": _certificate(
        "2026-01-01T00:00:00Z",
        dates=seq(BEGIN, element(UTC_TIME, b"261301000000Z")),
        remark="its end (notAfter) cannot be decoded: '261301000000Z' is no time, at byte",
        whole=False,
    ),
    "PrintableString with @": _certificate(
        "CN=shop@example",
        subject=name(element(PRINTABLE, b"shop@example")),
        remark="is a PrintableString and has '@' in it",
    ),
    "T61String": _certificate("CN=Bücher", subject=name(element(T61, b"B\xfccher"))),
    "BMPString": _certificate("CN=Bü", subject=name(element(BMP, "Bü".encode("utf-16-be")))),
    "half a BMPString": _certificate(
        "CN=#1e0142", subject=name(element(BMP, b"B")), remark="is no BMPString"
    ),
    "Latin-1 as UTF8String": _certificate(
        "CN=Bücher", subject=name(element(UTF8, b"B\xfccher")), remark="read as Latin-1"
    ),
    "no string as a name": _certificate(
        "x500UniqueIdentifier=#030300abcd",
        subject=name(element(BIT_STRING, b"\0\xab\xcd"), "2.5.4.45"),
    ),
    "unknown attribute": _certificate(
        "1.2.3.4=#0c0178", subject=name(element(UTF8, b"x"), "1.2.3.4")
    ),
    "e-mail address in the subject": _certificate(
        "emailAddress=a@b.example",
        subject=name(element(IA5, b"a@b.example"), "1.2.840.113549.1.9.1"),
    ),
    "Latin-1 among the names": _certificate(
        ID,
        "DNS:bücher.example",
        extensions=(alternative_names(URI, element(0x82, b"b\xfccher.example")),),
        remark="the DNS name at byte",
    ),
    "address as text": _certificate(
        ID,
        "IP:#31:30:2E:30:2E:30:2E:31",
        extensions=(alternative_names(URI, element(0x87, b"10.0.0.1")),),
        remark="must have 4 or 16",
    ),
    "decipherOnly alone": _certificate(
        "decipherOnly",
        extensions=(extension("2.5.29.15", bytes.fromhex("030307e080")),),
        remark="decipherOnly without keyAgreement",
    ),
    "no key usage": _certificate(
        extensions=(extension("2.5.29.15", bytes.fromhex("030100")),), remark="it allows nothing"
    ),
    "no extended key usage": _certificate(
        extensions=(extension("2.5.29.37", seq()),), remark="nothing is in it"
    ),
    "path length of no CA": _certificate(
        "path length: 0",
        extensions=(extension("2.5.29.19", seq(integer(0))),),
        remark="only a CA has a path length",
    ),
    "CA flag in BER": _certificate(
        "CA: yes",
        extensions=(extension("2.5.29.19", seq(element(BOOLEAN, b"\1"))),),
        remark="its CA flag is not written as DER has it",
    ),
    "criticality spelled out": _certificate(
        ID,
        extensions=(extension("2.5.29.17", seq(URI), element(BOOLEAN, b"\0")),),
        remark="whether it is critical is not written as DER has it",
    ),
    "damaged constraints": _certificate(
        ID,
        "DE:AD",
        extensions=(extension("2.5.29.19", b"\xde\xad"), NAMED),
        remark="its extension basicConstraints at byte",
        whole=False,
    ),
    "damaged names": _certificate(
        "30:09:82:05",
        extensions=(extension("2.5.29.17", b"\x30\x09\x82\x05abc"),),
        remark="its extension subjectAltName at byte",
        whole=False,
    ),
    "a damaged name after a good one": _certificate(
        "DNS:a.example",
        extensions=(
            extension("2.5.29.17", element(SEQUENCE, element(0x82, b"a.example") + b"\x82\x7fb")),
        ),
        remark="its extension subjectAltName at byte",
        whole=False,
    ),
    "an extension twice": _certificate(
        ID, extensions=(NAMED, NAMED), remark="subjectAltName appears more than once"
    ),
    "length in BER": Oddity(CERTIFICATE, long_lengths(_GOOD), (ID,), "its form is not DER's"),
    "length that comes at the end": Oddity(
        CERTIFICATE, b"\x30\x80" + _GOOD[4:] + b"\0\0", (ID,), "its form is not DER's"
    ),
    "something after it": Oddity(
        CERTIFICATE, _GOOD + b"\x05\0", (ID,), "is not shown (2 bytes)", is_whole=False
    ),
    "CSR without attributes": _request("ok", attributes=b"", remark="attributes are left out"),
    "CSR of version 2": _request("ok", version=integer(1), remark="it is of version 2"),
    "CSR that asks for nothing": _request("ok", attributes=wanted(), remark="holds none"),
    "CSR with parameters of ECDSA": _request("ok", algorithm=ECDSA_NULL, remark="has parameters"),
    "CSR of Microsoft": _request(ID, attributes=wanted(NAMED, kind="1.3.6.1.4.1.311.2.1.14")),
    "CSR with a damaged extension": _request(
        ID,
        attributes=wanted(extension("2.5.29.19", b"\xff"), NAMED),
        remark="its extension basicConstraints at byte",
        whole=False,
    ),
    "CRL without its next": _crl("(not said)", "02 since", der=crl(crl_entry(2), until=b"")),
    "CRL with a damaged entry": _crl(
        "02 since",
        "(entry 2 at byte 92 cannot be decoded)",
        "04 since",
        der=crl(crl_entry(2), seq(integer(3), element(UTC_TIME, b"x")), crl_entry(4)),
        remark="entry 2 at byte 92 cannot be decoded: 'x' is no time",
        whole=False,
    ),
    "CRL with reasons": _crl(
        "02 since 2026-01-01T00:00:00Z (keyCompromise)",
        "03 since 2026-01-01T00:00:00Z (reason 7)",
        "4 since 2026-01-01T00:00:00Z (invalidityDate 2026-01-01T00:00:00Z)",
        der=crl(
            crl_entry(2, seq(extension("2.5.29.21", element(ENUMERATED, b"\1")))),
            crl_entry(3, seq(extension("2.5.29.21", element(ENUMERATED, b"\7")))),
            crl_entry(4, seq(extension("2.5.29.24", element(0x18, b"20260101000000Z")))),
        ),
    ),
    "CRL with a long number": _crl(
        "0x1000", der=crl(crl_entry(2), extensions=(extension("2.5.29.20", integer(1 << 20000)),))
    ),
    "CRL with extensions": _crl(
        "deltaCRLIndicator",
        "only certificates of CAs",
        "DNS:a",
        der=crl(
            crl_entry(2),
            extensions=(
                extension("2.5.29.27", integer(4)),
                extension("2.5.29.28", seq(element(0x82, b"\xff"))),
                extension("2.5.29.18", seq(element(0x82, b"a"))),
            ),
        ),
    ),
    "CRL with a damaged extension": _crl(
        "02 since",
        der=crl(crl_entry(2), extensions=(extension("2.5.29.20", b"\2\0"),)),
        remark="its extension cRLNumber at byte",
        whole=False,
    ),
    "CRL whose extension is damaged in an entry": _crl(
        "02 since 2026-01-01T00:00:00Z (cRLReason (cannot be decoded))",
        "03 since",
        der=crl(crl_entry(2, seq(extension("2.5.29.21", b""))), crl_entry(3)),
        remark="extension cRLReason at byte",
        whole=False,
    ),
}
