"""Another PKI than the mesh's, good and forged: a root, an intermediate CA, machines below it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PSS
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.keys import KeyAlgorithm
from tests.authorities import DAY, HOUR, NOW, key

Extension = tuple[x509.ExtensionType, bool]
CN = "node7.corp.example"
SERIAL = 0x0A1B2C3D4E5F


def name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Corp"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
        ]
    )


def usages(**some: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{usage: some.get(usage, False) for usage in every.split()})


CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
SIGNS = usages(digital_signature=True)


@frozen(eq=False)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        subject: x509.Name,
        owner: CertificateIssuerPrivateKeyTypes,
        extensions: Mapping[type[x509.ExtensionType], Extension | None],
        **more: Any,
    ) -> "Holder":
        """A certificate below this one."""
        issuer = self.certificate
        return issued(issuer.subject, self.key, subject, owner, extensions, **more)

    def ca(self, common: str, key_name: str, **more: Any) -> "Holder":
        """A CA below this one."""
        extensions = {**CA, **more.pop("replace", {})}
        return self.issue(name(common), key(key_name).private_key, extensions, **more)

    def machine(
        self,
        common: str = CN,
        *,
        owner: CertificateIssuerPrivateKeyTypes | None = None,
        uris: Sequence[str] = (),
        replace: Mapping[type[x509.ExtensionType], Extension | None] | None = None,
        **more: Any,
    ) -> "Holder":
        """A certificate of a machine; ``replace`` gives an extension another value, or takes it away."""
        names = [x509.DNSName(common), *map(x509.UniformResourceIdentifier, uris)]
        extensions: dict[type[x509.ExtensionType], Extension | None] = {
            x509.BasicConstraints: (x509.BasicConstraints(False, None), True),
            x509.KeyUsage: (SIGNS, True),
            x509.ExtendedKeyUsage: (CLIENT, False),
            x509.SubjectAlternativeName: (x509.SubjectAlternativeName(names), False),
        }
        return self.issue(
            more.pop("subject", name(common)),
            owner or key("machine").private_key,
            {**extensions, **(replace or {})},
            **more,
        )

    def crl(self, *serials: int, start: datetime = NOW - HOUR, end: datetime = NOW + DAY) -> bytes:
        """Its CRL, in PEM."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(start).next_update(end)
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        identified = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identified, critical=False)
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(revoked.revocation_date(start).build())
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)


CA: Mapping[type[x509.ExtensionType], Extension | None] = {
    x509.BasicConstraints: (x509.BasicConstraints(True, None), True),
    x509.KeyUsage: (usages(key_cert_sign=True, crl_sign=True), True),
}


def issued(
    issuer: x509.Name,
    signer: CertificateIssuerPrivateKeyTypes,
    subject: x509.Name,
    owner: CertificateIssuerPrivateKeyTypes,
    extensions: Mapping[type[x509.ExtensionType], Extension | None],
    *,
    start: datetime = NOW - DAY,
    end: datetime = NOW + 30 * DAY,
    serial: int = SERIAL,
    digest: SHA256 | SHA1 | None = None,
    padding: PSS | None = None,
) -> Holder:
    public = owner.public_key()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.serial_number(serial).public_key(public)
    builder = builder.not_valid_before(start).not_valid_after(end)
    identifiers: dict[type[x509.ExtensionType], Extension | None] = {
        x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier.from_public_key(public), False),
        x509.AuthorityKeyIdentifier: (
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            False,
        ),
    }
    for found in {**identifiers, **extensions}.values():
        if found is not None:
            builder = builder.add_extension(*found)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    hashed = None if isinstance(signer, Ed25519PrivateKey) else digest or SHA256()
    return Holder(builder.sign(signer, hashed, rsa_padding=padding), owner)  # type: ignore[arg-type]


@cache
def root(common: str = "Corp Root", key_name: str = "corp-root") -> Holder:
    own = key(key_name).private_key
    return issued(name(common), own, name(common), own, CA, serial=1)


@cache
def intermediate() -> Holder:
    return root().ca("Corp Machines", "corp-machines", serial=2)


@cache
def machine() -> Holder:
    return intermediate().machine()


def private(algorithm: KeyAlgorithm) -> CertificateIssuerPrivateKeyTypes:
    return key("machine", algorithm).private_key
