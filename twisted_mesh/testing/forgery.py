"""Certificates that say whatever a test wants."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from pki.issuing.authority import Authority
from pki.issuing.profile import (
    ISSUING_NAME,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
    responder_subject,
)
from pki.keys import MemoryKey
from pki.serial import new_serial
from pki.spiffe import TrustDomain
from pki.svid.names import subject_for
from pki.svid.x509svid import extension

Extensions = Mapping[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None]


def names(*uris: str) -> x509.SubjectAlternativeName:
    """URI SANs, whatever they say."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def forge(
    issuer: Authority | None,
    profile: Profile = WORKLOAD,
    *,
    subject_key: MemoryKey | CertificateIssuerPrivateKeyTypes,
    trust_domain: TrustDomain,
    start: datetime,
    end: datetime,
    subject: x509.Name | None = None,
    issuer_name: x509.Name | None = None,
    uris: Iterable[str] | None = None,
    serial: int | None = None,
    digest: hashes.SHA256 | hashes.SHA224 | None = None,
    replace: Extensions | None = None,
) -> x509.Certificate:
    """A certificate of ``profile`` that passes every lint but for what is overridden.

    ``issuer`` None signs with the subject's own key. ``replace`` gives an extension another value
    and criticality, or takes it away (None).
    """
    private_key = subject_key.private_key if isinstance(subject_key, MemoryKey) else subject_key
    if subject is None:
        subject = _default_subject(profile, trust_domain)
        if profile.is_responder and issuer:
            subject = responder_subject(issuer.certificate.subject)
    if uris is None:
        uris = [
            str(trust_domain.id if profile.is_ca else trust_domain.member("service", "backend"))
        ]
    public_key = private_key.public_key()
    ski = x509.SubjectKeyIdentifier.from_public_key(public_key)
    issuer_ski = extension(issuer.certificate, x509.SubjectKeyIdentifier) if issuer else ski
    if issuer_ski is None:
        raise ValueError("the issuer has no subject key identifier")
    aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski)
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] = {
        x509.BasicConstraints: (profile.basic_constraints, True),
        x509.KeyUsage: (profile.key_usage, True),
        x509.SubjectKeyIdentifier: (ski, False),
        x509.AuthorityKeyIdentifier: (aki, False),
        x509.SubjectAlternativeName: (names(*uris), not subject.rdns),
    }
    if profile.extended:
        extensions[x509.ExtendedKeyUsage] = (x509.ExtendedKeyUsage(profile.extended), False)
    if profile.is_responder:
        extensions[x509.SubjectAlternativeName] = None
        extensions[x509.OCSPNoCheck] = (x509.OCSPNoCheck(), False)
    for published in profile.publication.extensions if profile.publication else ():
        extensions[type(published)] = (published, False)
    extensions.update(replace or {})
    if issuer_name is None:
        issuer_name = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .serial_number(new_serial() if serial is None else serial)
        .issuer_name(issuer_name)
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for found in extensions.values():
        if found is not None:
            builder = builder.add_extension(found[0], critical=found[1])
    if issuer is None:
        hashed = hasattr(private_key, "key_size")  # EdDSA hashes by itself
        return builder.sign(private_key, digest or (hashes.SHA256() if hashed else None))
    if not isinstance(issuer.key, MemoryKey):
        raise TypeError("the issuer's key is not in memory")
    return builder.sign(issuer.key.private_key, digest or issuer.key.algorithm.hash)


def _default_subject(profile: Profile, trust_domain: TrustDomain) -> x509.Name:
    if not profile.is_ca:
        return subject_for(trust_domain.member("service", "backend"))
    name = ROOT_NAME if profile.path_length else ISSUING_NAME
    return ca_subject(name, trust_domain, 1)
