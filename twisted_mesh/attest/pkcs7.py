"""PKCS #7 with one signature of RSA and SHA-256 over one document (RFC 5652), as AWS signs what it says of an instance.

All that is not signed is refused, or is the pinned certificate's own: whoever changes a byte has changed something that
counts. What is verified is what the caller gets to read, and nothing is read before.
"""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Self

from asn1crypto import cms, core
from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pki.errors import HOSTILE_INPUT, printable
from pki.svid.certificate import encoded_parts
from twisted_mesh.attest.errors import BadEvidence

#: Bytes of DER. A document of AWS has about 1,100.
MOST_BYTES = 16 * 1024
#: Bytes of the attributes, of which AWS has about 110: who has signed them shows only once they were read, one by one.
MOST_OF_ATTRIBUTES = 512
_ASK_RSA_2048 = (
    "ask the metadata service for /latest/dynamic/instance-identity/rsa2048, "
    "which is signed by RSA-2048 and SHA-256"
)
_TAGGED, _SET, _INDEFINITE = 0xA0, 0x31, 0x80
#: What asn1crypto is known to raise on bytes that are no such structure.
_UNREADABLE: tuple[type[BaseException], ...] = (
    *HOSTILE_INPUT,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
)
_DEMANDED = ("content_type", "message_digest")


@frozen(repr=False)
class SignedDocument:
    """A PKCS #7 SignedData that was read, and not verified yet."""

    content: bytes | None
    """None where the document is detached."""
    issuer: bytes
    """Of the signer's certificate, in DER as it stands there."""
    serial: int
    attributes: bytes = field(repr=False)
    """What is signed: the attributes as a SET in DER (RFC 5652 section 5.4)."""
    digest: bytes = field(repr=False)
    """Of the document, as the attributes have it."""
    signature: bytes = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)
    """That came along, in DER. Nobody is believed for them."""

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Out of BER or DER. Raises :class:`BadEvidence`, with the rule that is broken."""
        if len(data) > MOST_BYTES:
            raise BadEvidence(
                f"the PKCS #7 document has {len(data)} bytes, and {MOST_BYTES} at most are looked at: "
                "send what the metadata service answers, and nothing else"
            )
        try:
            return cls._of(data)
        except _UNREADABLE:
            raise BadEvidence(
                f"it is no PKCS #7 document, or is damaged (RFC 5652): {_ASK_RSA_2048}"
            ) from None

    @classmethod
    def _of(cls, data: bytes) -> Self:
        whole = cms.ContentInfo.load(data, strict=True)
        _demand(whole["content_type"].native == "signed_data", "it is PKCS #7, but no SignedData")
        signed = whole["content"]
        _demand(signed["version"].native == "v1", "the version of its SignedData is unknown")
        _demand(len(signed["digest_algorithms"]) == 1, "it names several digest algorithms")
        _demand_sha256(signed["digest_algorithms"][0])
        _demand(_is_absent(signed["crls"]), "there are CRLs in it, which nobody has signed")
        enclosed = signed["encap_content_info"]
        _demand(enclosed["content_type"].native == "data", "what it signs is not data")
        signers = signed["signer_infos"]
        _demand(len(signers) == 1, f"it has {len(signers)} signers, and one is what AWS has")
        signer = signers[0]
        _demand(signer["version"].native == "v1", "the version of its signer is unknown")
        _demand_sha256(signer["digest_algorithm"])
        _demand_rsa(signer["signature_algorithm"])
        _demand(
            _is_absent(signer["unsigned_attrs"]), "there are attributes in it that are not signed"
        )
        _demand(
            signer["sid"].name == "issuer_and_serial_number",
            "its signer is not named by issuer and serial number",
        )
        attributes = _signed_set(signer["signed_attrs"])
        return cls(
            _octets(enclosed["content"]),
            signer["sid"].chosen["issuer"].dump(),
            signer["sid"].chosen["serial_number"].native,
            attributes,
            _digest_in(attributes),
            _octets(signer["signature"]) or b"",
            _certificates(signed["certificates"]),
        )

    def names(self, certificate: x509.Certificate) -> bool:
        """Whether ``certificate`` is who is said to have signed it, by issuer and serial number."""
        return (
            self.serial == certificate.serial_number
            and self.issuer == encoded_parts(certificate)[0]
        )

    def verified(
        self, certificates: Iterable[x509.Certificate], detached: bytes | None = None
    ) -> tuple[bytes, x509.Certificate]:
        """The document's bytes, and which of the pinned ``certificates`` has signed them.

        ``detached``: the document, where it is not in the PKCS #7. Raises :class:`BadEvidence`.
        """
        if self.content is not None and detached is not None:
            raise BadEvidence(
                "the document is in its PKCS #7 already, and came beside it too: only one of them can be signed; "
                "send the PKCS #7 alone"
            )
        content = detached if self.content is None else self.content
        if content is None:
            raise BadEvidence(
                "the PKCS #7 has no document in it: send the document along, as the metadata service has it"
            )
        if not hmac.compare_digest(sha256(content).digest(), self.digest):
            raise BadEvidence(
                "the document is not the one that was signed (RFC 5652 section 5.6): its SHA-256 is another"
            )
        for certificate in certificates:
            if self.names(certificate) and self._is_signed_by(certificate):
                self._demand_nothing_beside(certificate)
                return content, certificate
        raise BadEvidence(
            "it is not signed by a certificate of AWS that is configured here: it is of another region, or forged; "
            "[aws] certificates has the RSA-2048 certificate of each region"
        )

    def _is_signed_by(self, certificate: x509.Certificate) -> bool:
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey):
            return False
        try:
            key.verify(self.signature, self.attributes, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True

    def _demand_nothing_beside(self, certificate: x509.Certificate) -> None:
        pinned = certificate.public_bytes(Encoding.DER)
        _demand(
            all(beside == pinned for beside in self.certificates),
            "there are certificates in it beside the one that is configured",
        )


def _demand(holds: bool, objection: str) -> None:
    if not holds:
        raise BadEvidence(f"{objection} (RFC 5652): {_ASK_RSA_2048}")


def _is_absent(value: Any) -> bool:
    """Whether an optional element is not there at all; an empty one is there."""
    return isinstance(value, core.Void)


def _certificates(several: Any) -> tuple[bytes, ...]:
    if _is_absent(several):
        return ()
    _demand(len(several) == 1, f"there are {len(several)} certificates in it")
    return tuple(choice.chosen.dump() for choice in several)


def _demand_sha256(algorithm: Any) -> None:
    name = algorithm["algorithm"].native
    _demand(name == "sha256", f"its digest is {_shown(name)}, which is not taken")
    _demand(_is_bare(algorithm), "its digest algorithm has parameters")


def _demand_rsa(algorithm: Any) -> None:
    name = algorithm["algorithm"].native
    taken = ("rsassa_pkcs1v15", "sha256_rsa")
    _demand(name in taken, f"its signature is by {_shown(name)}, which is not taken")
    _demand(_is_bare(algorithm), "its signature algorithm has parameters")


def _is_bare(algorithm: Any) -> bool:
    """Whether its parameters are absent or NULL (RFC 5754 sections 2 and 3.2)."""
    return algorithm["parameters"].dump() in (b"", b"\x05\x00")


def _shown(name: str) -> str:
    return printable(str(name), 40).upper()


def _octets(value: Any) -> bytes | None:
    """The bytes of an OCTET STRING, from all its pieces; None where it is absent."""
    if _is_absent(value):
        return None
    found = value.native
    if not isinstance(found, bytes):
        raise TypeError("not an OCTET STRING")
    return found


def _signed_set(tagged: Any) -> bytes:
    """The attributes as they were signed: their own bytes, below the tag of a SET.

    Raises :class:`BadEvidence` where these are not DER: others could read them otherwise.
    """
    encoded = b"" if _is_absent(tagged) else tagged.dump()
    _demand(bool(encoded), "it has no signed attributes")
    _demand(
        len(encoded) <= MOST_OF_ATTRIBUTES,
        f"its signed attributes have {len(encoded)} bytes, and {MOST_OF_ATTRIBUTES} at most are looked at",
    )
    _demand(
        encoded[0] == _TAGGED and encoded[1] != _INDEFINITE, "its signed attributes are not DER"
    )
    whole = bytes((_SET,)) + encoded[1:]
    again = cms.CMSAttributes.load(whole, strict=True)
    _demand(again.dump(force=True) == whole, "its signed attributes are not DER")
    return whole


def _digest_in(attributes: bytes) -> bytes:
    """The message digest among signed attributes that say that data is signed."""
    found: dict[str, Any] = {}
    for attribute in cms.CMSAttributes.load(attributes, strict=True):
        name = attribute["type"].native
        _demand(name not in found, f"the signed attribute {_shown(name)} is there twice")
        found[name] = attribute["values"]
    for name in _DEMANDED:
        _demand(
            name in found and len(found[name]) == 1,
            f"the signed attribute {_shown(name)} is not there once",
        )
    _demand(found["content_type"][0].native == "data", "its attributes say that no data is signed")
    digest = _octets(found["message_digest"][0])
    if digest is None:
        raise TypeError("a digest without a value")
    return digest
