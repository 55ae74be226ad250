"""Profiles: what each kind of certificate of the mesh looks like."""

from datetime import timedelta
from functools import cache

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from pki.issuing.publication import Publication
from pki.spiffe import TrustDomain

#: How far before its issue a certificate begins, for peers whose clocks are behind.
BACKDATE = timedelta(seconds=30)
ROOT_NAME = "mtls-mesh-root-ca"
ISSUING_NAME = "mtls-mesh-issuing-ca"
RESPONDER_NAME = "mtls-mesh-ocsp-responder"

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@frozen
class Profile:
    """A kind of certificate; :mod:`pki.issuing.lint` holds every draft to it."""

    name: str
    lifetime: timedelta
    """The longest life, counted from issue."""
    usages: frozenset[str]
    """Names as :class:`cryptography.x509.KeyUsage` spells them."""
    path_length: int | None = None
    """How many CAs may stand below; None for a certificate that is no CA."""
    extended: tuple[ObjectIdentifier, ...] = ()
    is_responder: bool = False
    """Whether it signs OCSP answers for its issuer: it names no workload, and nobody looks whether it is
    revoked itself (RFC 6960 section 4.2.2.2.1), so it is short-lived."""
    publication: Publication | None = None
    """The URLs in it."""

    @property
    def is_ca(self) -> bool:
        """Whether it may issue certificates."""
        return self.path_length is not None

    @property
    def basic_constraints(self) -> x509.BasicConstraints:
        """The extension of RFC 5280 section 4.2.1.9."""
        return x509.BasicConstraints(ca=self.is_ca, path_length=self.path_length)

    @property
    def key_usage(self) -> x509.KeyUsage:
        """The extension of RFC 5280 section 4.2.1.3."""
        return _key_usage(self.usages)


@cache
def _key_usage(usages: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in usages for usage in _USAGES})


_SIGNS_CERTIFICATES = frozenset({"key_cert_sign", "crl_sign"})

ROOT = Profile("root", timedelta(days=3650), _SIGNS_CERTIFICATES, path_length=1)
ISSUING = Profile("issuing", timedelta(days=365), _SIGNS_CERTIFICATES, path_length=0)
#: TLS 1.3 signs and never encrypts with a certificate's key, so a leaf may only sign.
WORKLOAD = Profile(
    "workload",
    timedelta(hours=24),
    frozenset({"digital_signature"}),
    extended=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
)
#: No SVID: neither a URI name nor a usage that TLS wants.
OCSP_RESPONDER = Profile(
    "ocsp-responder",
    timedelta(days=7),
    frozenset({"digital_signature"}),
    extended=(ExtendedKeyUsageOID.OCSP_SIGNING,),
    is_responder=True,
)


def generation_of(subject: x509.Name) -> int:
    """The generation that :func:`ca_subject` wrote; 0 for a name that it did not."""
    for unit in subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME):
        word, _, number = str(unit.value).partition(" ")
        if word == "generation" and number.isascii() and number.isdigit():
            return int(number)
    return 0


def ca_subject(common_name: str, trust_domain: TrustDomain, generation: int) -> x509.Name:
    """A CA's name. It tells its trust domain and generation, so that no path is ever ambiguous."""
    organization = str(trust_domain)
    if len(organization) > 64:  # RFC 5280 ub-organization-name
        organization = organization[:63] + "~"
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, f"generation {generation}"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )


def responder_subject(issuer: x509.Name) -> x509.Name:
    """The name of a responder of the CA ``issuer``: the CA's trust domain and generation, and what it is."""
    kept = (x509.NameOID.ORGANIZATION_NAME, x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    attributes = [attribute for attribute in issuer if attribute.oid in kept]
    return x509.Name([*attributes, x509.NameAttribute(x509.NameOID.COMMON_NAME, RESPONDER_NAME)])
