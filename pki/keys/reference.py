"""Key references: what lies in a key's file when the key itself is elsewhere, on a token or behind a signer.

Such a file is no secret: one line says where the key is, and its public half follows in PEM::

    pkcs11:token=mesh;object=issuing-2;id=%3a%9f
    -----BEGIN PUBLIC KEY-----
    ...

The line names the key and never how to get at it: no module that a program would load, and no PIN. Who may change a
file must not be able to have code run by it.
"""

import re
from typing import Self

from attrs import field, frozen
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.der import pem
from pki.errors import HOSTILE_INPUT, Malformed
from pki.keys.algorithm import KeyAlgorithm, PublicKey, is_certifiable
from pki.keys.pkcs8 import UnusableKey
from pki.keys.spki import key_id, spki_der
from pki.pem import PUBLIC_KEY, sections

#: The schemes of URIs that keys are known by.
SCHEMES = ("pkcs11", "signer")
#: RFC 7512's characters, and those of a signer's names, without the "?" that begins a query.
_URI = re.compile(r"(?:pkcs11|signer):[A-Za-z0-9\-._~:\[\]@!$'()*+,=;&%/]{1,1000}", re.ASCII)
_BEGINS = re.compile(rb"\s*(?:pkcs11|signer):")
_RESTORE = "restore it from a backup"
_UNREADABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed)


@frozen(eq=False, repr=False)
class KeyReference:
    """Where a key is, and what its signatures verify by. ``KeyReference.parse(str(x))`` is the same again."""

    uri: str = field()
    """``pkcs11:`` with path attributes only (RFC 7512 section 2.3), or ``signer:`` and the key's name there."""
    public_key: PublicKey

    @uri.validator
    def _names_a_key(self, _: object, uri: str) -> None:
        if not _URI.fullmatch(uri):
            raise UnusableKey(
                "a key reference begins with pkcs11: or signer:, and has no query: it says where a key is, and the "
                "options say how to get there"
            )

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """What a file holds. Raises :class:`UnusableKey`."""
        line, _, rest = text.strip().partition(b"\n")
        try:
            found = sections(rest)
            if not rest.startswith(b"-----") or [one.label for one in found] != [PUBLIC_KEY]:
                raise Malformed("no public key")
            key = load_der_public_key(found[0].der())
            uri = line.strip().decode("ascii")
        except _UNREADABLE:
            raise UnusableKey(
                f"this is no key reference, which has a line with the key's URI and one public key in PEM: {_RESTORE}"
            ) from None
        if not is_certifiable(key) or KeyAlgorithm.of(key) is None:
            raise UnusableKey(f"the key that is referred to is none of {', '.join(KeyAlgorithm)}")
        return cls(uri, key)

    def __str__(self) -> str:
        return f"{self.uri}\n{pem(PUBLIC_KEY, spki_der(self.public_key)).decode()}"

    @property
    def scheme(self) -> str:
        """One of :data:`SCHEMES`."""
        return self.uri.partition(":")[0]

    @property
    def algorithm(self) -> KeyAlgorithm:
        """What the key signs by."""
        algorithm = KeyAlgorithm.of(self.public_key)
        if algorithm is None:
            raise UnusableKey(f"the key that is referred to is none of {', '.join(KeyAlgorithm)}")
        return algorithm

    @property
    def key_id(self) -> str:
        """How issuers are named in the store: the SHA-256 of its SubjectPublicKeyInfo, in hex."""
        return key_id(self.public_key)


def is_reference(data: bytes) -> bool:
    """Whether a key's file says that the key is elsewhere. Never raises."""
    return _BEGINS.match(data) is not None
