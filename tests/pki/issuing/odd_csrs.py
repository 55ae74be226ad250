"""CSRs as odd programs and people write them: each is signed by its key, and openssl reads and verifies it.

``GRANTED`` are harmless and read; ``REFUSED`` break a rule that the refusal names, with what to do about it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from attrs import frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding, rsa

from pki.keys import spki_der
from tests.authorities import BACKEND, RSA_WITH, key, rsa_key, tlv

OID_CN = bytes.fromhex("0603550403")
EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")
WINDOWS_REQUEST = bytes.fromhex("060a2b060104018237020" + "10e")
CHALLENGE = bytes.fromhex("06092a864886f70d010907")
SAN, USAGE = bytes.fromhex("0603551d11"), bytes.fromhex("0603551d0f")
ECDSA = bytes.fromhex("06082a8648ce3d0403")
NULL, NO_SUBJECT = b"\x05\0", b"\x30\0"

Signer = Callable[[bytes], bytes]


def name(tag: int, value: bytes, oid: bytes = OID_CN) -> bytes:
    return tlv(0x30, tlv(0x31, tlv(0x30, oid + tlv(tag, value))))


def long(der: bytes, octets: int = 3) -> bytes:
    """The same with a length in that many octets."""
    size = der[1] if der[1] < 0x80 else int.from_bytes(der[2 : 2 + (der[1] & 0x7F)], "big")
    return bytes((der[0], 0x80 | octets)) + size.to_bytes(octets, "big") + der[len(der) - size :]


def extension(value: bytes, oid: bytes = SAN, critical: bytes = b"") -> bytes:
    return tlv(0x30, oid + critical + tlv(0x04, value))


def names(*parts: tuple[int, bytes]) -> bytes:
    return extension(tlv(0x30, b"".join(tlv(tag, value) for tag, value in parts)))


def requested(*extensions: bytes, oid: bytes = EXTENSION_REQUEST) -> bytes:
    return tlv(0x30, oid + tlv(0x31, tlv(0x30, b"".join(extensions))))


def _ecdsa(data: bytes) -> bytes:
    return key().algorithm.kind.sign(key().private_key, data)


@frozen(kw_only=True)
class Odd:
    """How it differs from what every program reads."""

    version: bytes = b"\x02\x01\0"
    subject: bytes = NO_SUBJECT
    spki: bytes | None = None
    attributes: bytes | None = b""
    after: bytes = b""
    algorithm: bytes = tlv(0x30, ECDSA + b"\x02")
    sign: Signer = _ecdsa
    outer: Callable[[bytes], bytes] = bytes

    def der(self) -> bytes:
        spki = spki_der(key().public_key) if self.spki is None else self.spki
        attributes = b"" if self.attributes is None else tlv(0xA0, self.attributes)
        info = tlv(0x30, self.version + self.subject + spki + attributes + self.after)
        signature = tlv(0x03, b"\0" + self.sign(info))
        return self.outer(tlv(0x30, info + self.algorithm + signature))


def with_names(*parts: tuple[int, bytes]) -> Odd:
    return Odd(attributes=requested(names(*parts)))


LOCAL = names((0x82, b"localhost"))
ID = str(BACKEND).encode()

GRANTED = {
    "no attributes": Odd(attributes=None),
    "version 2": Odd(version=b"\x02\x01\x01"),
    "version 3": Odd(version=b"\x02\x01\x02"),
    "NULL parameters of ECDSA": Odd(algorithm=tlv(0x30, ECDSA + b"\x02" + NULL)),
    "no extensions in the request": Odd(attributes=tlv(0x30, EXTENSION_REQUEST + tlv(0x31, b""))),
    "an empty list of extensions": Odd(attributes=requested()),
    "critical FALSE": Odd(attributes=requested(extension(b"\x30\0", SAN, b"\x01\x01\0"))),
    "critical TRUE of BER": Odd(attributes=requested(extension(b"\x30\0", SAN, b"\x01\x01\x01"))),
    "attributes not sorted": Odd(
        attributes=requested(LOCAL) + tlv(0x30, CHALLENGE + tlv(0x31, tlv(0x0C, b"secret")))
    ),
    "a relative name not sorted": Odd(
        subject=tlv(
            0x30,
            tlv(
                0x31,
                tlv(0x30, OID_CN + tlv(0x0C, b"zz"))
                + tlv(0x30, bytes.fromhex("0603550406") + tlv(0x13, b"DE")),
            ),
        )
    ),
    "a long length of the subject": Odd(subject=long(name(0x0C, b"shop"), 1)),
    "a long length of the key": Odd(spki=long(spki_der(key().public_key))),
    "a long length of the CSR": Odd(outer=lambda der: long(der, 4)),
    "a T61 subject": Odd(subject=name(0x14, b"sh\xf6p")),
    "a subject of UTF-8 that is Latin-1": Odd(subject=name(0x0C, b"sh\xf6p")),
    "a printable subject that is not": Odd(subject=name(0x13, b"shop*@_")),
    "a country of three letters": Odd(subject=name(0x13, b"DEU", bytes.fromhex("0603550406"))),
    "an empty common name": Odd(subject=name(0x0C, b"")),
    "a common name of 100 characters": Odd(subject=name(0x0C, b"x" * 100)),
    "a subject of BMP": Odd(subject=name(0x1E, "shöp".encode("utf-16-be"))),
    "another extension that is none": Odd(attributes=requested(extension(b"\xff", USAGE), LOCAL)),
    "Windows' attribute": Odd(attributes=requested(LOCAL, oid=WINDOWS_REQUEST)),
    "two requests, one without names": Odd(
        attributes=requested(LOCAL) + requested(extension(b"\x03\x02\x07\x80", USAGE))
    ),
    "an empty list of names": with_names(),
    "an address of IPv6": with_names((0x87, bytes(15) + b"\x01")),
}


def _of_rsa(private: rsa.RSAPrivateKey, algorithm: str, digest: hashes.HashAlgorithm) -> Odd:
    return Odd(
        spki=spki_of(private),
        algorithm=RSA_WITH[algorithm],
        sign=lambda data: private.sign(data, padding.PKCS1v15(), digest),
    )


def spki_of(private: Any) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pss_key() -> Odd:
    """A key that is good for RSASSA-PSS alone (RFC 4055 section 1.2)."""
    private = rsa_key()
    oid = bytes.fromhex("06092a864886f70d01010a")
    sha256 = bytes.fromhex("300d06096086480165030402010500")
    mask = tlv(0xA1, tlv(0x30, bytes.fromhex("06092a864886f70d010108") + sha256))
    parameters = tlv(0x30, tlv(0xA0, sha256) + mask + tlv(0xA2, b"\x02\x01\x20"))
    bits = spki_of(private)[4 + 15 :]
    return Odd(
        spki=tlv(0x30, tlv(0x30, oid) + bits),
        algorithm=tlv(0x30, oid + parameters),
        sign=lambda data: private.sign(
            data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
        ),
    )


@cache
def _dsa() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(2048)


def dsa_key() -> Odd:
    """As keytool makes it by its old default, with a NULL where there are no parameters."""
    return Odd(
        spki=spki_of(_dsa()),
        algorithm=tlv(0x30, bytes.fromhex("0609608648016503040302") + NULL),
        sign=lambda data: _dsa().sign(data, hashes.SHA256()),
    )


def ed448_key() -> Odd:
    private = ed448.Ed448PrivateKey.generate()
    return Odd(
        spki=spki_of(private),
        algorithm=tlv(0x30, bytes.fromhex("06032b6571")),
        sign=private.sign,
    )


def _of_curve(curve: ec.EllipticCurve) -> Odd:
    private = ec.generate_private_key(curve)
    return Odd(
        spki=spki_of(private), sign=lambda data: private.sign(data, ec.ECDSA(hashes.SHA256()))
    )


#: The code of the refusal, and what it says of the rule and of the cure.
REFUSED: dict[str, tuple[Callable[[], Odd], str, str]] = {
    "an address as DNS name": (
        lambda: with_names((0x82, b"127.0.0.1")),
        "malformed-dns-name",
        "is an IP address and no DNS name.*IP:",
    ),
    "capitals": (
        lambda: with_names((0x82, b"Shop.mesh.local")),
        "malformed-dns-name",
        "capital letters.*write shop.mesh.local",
    ),
    "a dot at the end": (
        lambda: with_names((0x82, b"shop.mesh.local.")),
        "malformed-dns-name",
        "ends with a dot.*write shop.mesh.local",
    ),
    "an underscore": (
        lambda: with_names((0x82, b"my_shop.mesh.local")),
        "malformed-dns-name",
        "underscore.*dash",
    ),
    "a wildcard": (
        lambda: with_names((0x82, b"*.mesh.local")),
        "malformed-dns-name",
        "wildcard.*name each host",
    ),
    "an empty name": (
        lambda: with_names((0x82, b"")),
        "malformed-dns-name",
        "empty DNS name.*leave it out",
    ),
    "a URI as DNS name": (
        lambda: with_names((0x82, ID)),
        "malformed-dns-name",
        "is a URI and no DNS name.*as a URI",
    ),
    "a port": (
        lambda: with_names((0x82, b"shop.mesh.local:443")),
        "malformed-dns-name",
        "has a port.*write shop.mesh.local",
    ),
    "Latin-1": (
        lambda: with_names((0x82, b"b\xfccher.mesh.local")),
        "malformed-dns-name",
        "'bücher.mesh.local' has letters beyond ASCII.*xn--",
    ),
    "UTF-8": (
        lambda: with_names((0x82, "bücher.mesh.local".encode())),
        "malformed-dns-name",
        "'bücher.mesh.local' has letters beyond ASCII.*xn--",
    ),
    "an address as text": (
        lambda: with_names((0x87, b"127.0.0.1")),
        "unsupported-name",
        "address 127.0.0.1 as text.*IP:127.0.0.1",
    ),
    "a network": (
        lambda: with_names((0x87, bytes(8))),
        "unsupported-name",
        "a network.*name each address",
    ),
    "an address of five bytes": (
        lambda: with_names((0x87, bytes(5))),
        "unsupported-name",
        "of 5 bytes.*4 or 16",
    ),
    "an e-mail address": (
        lambda: with_names((0x81, b"root@mesh.local")),
        "unsupported-name",
        "an e-mail address.*URI, DNS and IP",
    ),
    "a URI that is not ASCII": (
        lambda: with_names((0x86, b"spiffe://mesh.local/b\xfccher")),
        "wrong-uri",
        "bücher.*requested",
    ),
    "another's ID in Windows' attribute": (
        lambda: Odd(attributes=requested(names((0x86, b"spiffe://x/y")), oid=WINDOWS_REQUEST)),
        "wrong-uri",
        "spiffe://x/y",
    ),
    "names twice": (
        lambda: Odd(attributes=requested(LOCAL, LOCAL)),
        "malformed",
        "the extension 2.5.29.17 twice.*once",
    ),
    "names twice, in two requests": (
        lambda: Odd(attributes=requested(LOCAL) + requested(LOCAL)),
        "malformed",
        "the extension 2.5.29.17 twice.*once",
    ),
    "a key of RSASSA-PSS": (pss_key, "weak-key", "RSASSA-PSS alone.*make a new key.*genpkey"),
    "a key of DSA": (dsa_key, "weak-key", "DSA are not used.*keytool -genkeypair -keyalg EC"),
    "a key of Ed448": (ed448_key, "weak-key", "Ed448 are not used.*genpkey"),
    "a curve of Bitcoin's": (
        lambda: _of_curve(ec.SECP256K1()),
        "weak-key",
        "secp256k1 are not used.*genpkey",
    ),
    "a curve of Brainpool's": (
        lambda: _of_curve(ec.BrainpoolP256R1()),
        "weak-key",
        "brainpoolP256r1 are not used.*genpkey",
    ),
    "SHA-1": (
        lambda: _of_rsa(rsa_key(), "sha1", hashes.SHA1()),
        "weak-signature",
        "signed with SHA-1.*openssl req -new -sha256",
    ),
    "MD5": (
        lambda: _of_rsa(rsa_key(), "md5", hashes.MD5()),
        "weak-signature",
        "signed with MD5.*openssl req -new -sha256",
    ),
    "SHA-224": (
        lambda: _of_rsa(rsa_key(), "sha224", hashes.SHA224()),
        "weak-signature",
        "signed with SHA-224.*SHA-256",
    ),
    "a byte after its end": (
        lambda: Odd(outer=lambda der: der + b"\0"),
        "malformed",
        "has 1 byte after its end.*openssl req -in FILE -out NEW",
    ),
    "version 8": (
        lambda: Odd(version=b"\x02\x01\x07"),
        "malformed",
        "version 8, and there is but version 1.*anew",
    ),
    "an open length": (
        lambda: Odd(outer=lambda der: b"\x30\x80" + der[4 if der[1] == 0x82 else 3 :] + b"\0\0"),
        "malformed",
        "length is left open, as BER.*anew",
    ),
}
