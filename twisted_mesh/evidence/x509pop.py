"""Proof that this process has the key of a certificate of another PKI: ``--attest x509pop:FILE[,FILE]``."""

from pathlib import Path
from typing import Self

import msgspec
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from zope.interface import implementer

from pki.errors import HOSTILE_INPUT, Malformed
from pki.keys import UnusableKey, spki_der
from pki.keys.kind import base64url
from pki.keys.pkcs8 import read_pem
from pki.svid.possession import possession
from pki.svid.x509svid import load_certificates
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence
from twisted_mesh.state.directory import read_file

_LARGEST = 256 * 1024
_OPTION = "--attest x509pop"


@implementer(IProver)
@frozen
class X509PopProver:
    """Reads its files for each proof, so that a certificate that is renewed beside it is the one that is shown."""

    files: tuple[Path, ...]
    kind = "x509pop"
    wants_challenge = True

    @classmethod
    def of(cls, file: str | None) -> Self:
        """``x509pop:FILE`` with certificates and key in PEM, or ``x509pop:FILE,FILE``: one has the key."""
        named = (file or "").split(",")
        if not 1 <= len(named) <= 2 or not all(named):
            raise Malformed(
                "--attest x509pop: name a file with a certificate, what is above it, and its key in PEM, or two "
                "files: x509pop:CHAIN,KEY"
            )
        return cls(tuple(map(Path, named)))

    @property
    def where(self) -> str:
        """The files."""
        return ", ".join(map(str, self.files))

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        """Signs the challenge, the trust domain, and ``key``, which is to be certified. Raises :class:`NoEvidence`."""
        if challenge is None:
            raise NoEvidence(
                f"{self.where}: the CA gave no challenge, and there is nothing to sign"
            )
        contents = [read_file(file, _OPTION, _LARGEST) for file in self.files]
        own = self._key(contents)
        chain = self._chain(contents, own)
        signature = possession(own, challenge, trust_domain, key)
        shown = {
            "chain": [c.public_bytes(serialization.Encoding.PEM).decode("ascii") for c in chain],
            "challenge": challenge,
            "signature": base64url(signature),
        }
        return AttestationData(self.kind, msgspec.json.encode(shown))

    def _key(self, contents: list[bytes]) -> PrivateKeyTypes:
        """The first key that there is; what is told of it never has a piece of it."""
        told = ""
        for content in contents:
            try:
                return read_pem(content)
            except UnusableKey as error:
                told = told or str(error)
        raise NoEvidence(f"{self.where}: {told}")

    def _chain(self, contents: list[bytes], own: PrivateKeyTypes) -> list[x509.Certificate]:
        """The certificate of the key first, wherever it stands, and then the others in their order."""
        found: list[x509.Certificate] = []
        told = ""
        for content in contents:
            try:
                found += load_certificates(content, self.where)
            except Malformed as error:
                told = told or str(error)
        if not found:
            raise NoEvidence(told)
        wanted = spki_der(own.public_key())
        leaf = next((cert for cert in found if _is_for(cert, wanted)), None)
        if leaf is None:
            raise NoEvidence(
                f"{self.where}: none of the certificates is for the key: name those that belong together"
            )
        return [leaf, *(cert for cert in found if cert != leaf)]


def _is_for(cert: x509.Certificate, spki: bytes) -> bool:
    try:
        return spki_der(cert.public_key()) == spki
    except HOSTILE_INPUT:
        return False
