"""The CSR of an issuing CA: made where its key is, and read where a root is that may certify it.

It asks for all that the certificate is to have (RFC 2985 section 5.4.2), so that a CA of somebody else's, which copies
what is asked for, makes the right one; a root of ours makes it by its own profile, and refuses what asks for another.
"""

import hashlib
from collections.abc import Collection
from typing import Self

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.der import pem
from pki.errors import HOSTILE_INPUT, Malformed, Problem, Refused, printable
from pki.issuing.csr import load_csr
from pki.issuing.profile import ISSUING, ISSUING_NAME, ca_subject, generation_of
from pki.issuing.request_key import proven_key
from pki.issuing.unsigned import assemble, placeholder
from pki.keys import PublicKey, SigningKey, key_id, signature_over
from pki.pem import REQUEST
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.names import alternative_names
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import extension

_ANEW = "take the CSR that mesh-ctl ca root csr writes, as it is"


async def build_ca_request(key: SigningKey, trust_domain: TrustDomain, generation: int) -> bytes:
    """A CSR in PEM for the issuing CA of that generation, signed with its key (RFC 2986).

    Raises :class:`pki.keys.SigningFailed`, and what the key raises.
    """
    unsigned = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(ca_subject(ISSUING_NAME, trust_domain, generation))
        .add_extension(ISSUING.basic_constraints, critical=True)
        .add_extension(ISSUING.key_usage, critical=True)
        .add_extension(alternative_names(trust_domain.id), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key), critical=False)
        .sign(placeholder(key.algorithm.kind.private_class, key.public_key), key.algorithm.hash)
    )
    signature = await signature_over(unsigned.tbs_certrequest_bytes, key, key.public_key)
    der = assemble(unsigned.tbs_certrequest_bytes, key.algorithm.identifier, signature)
    return pem(REQUEST, der)


def trust_domain_of(data: bytes) -> TrustDomain:
    """Whose CA a CSR asks for, by its URI; nothing else of it is looked at. Raises :class:`Malformed`."""
    try:
        asked = x509.load_der_x509_csr(load_csr(data).der)
        names = extension(asked, x509.SubjectAlternativeName)
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier) if names else ("",)
    except HOSTILE_INPUT:
        raise Malformed(f"the CSR names no trust domain: {_ANEW}") from None
    return SpiffeId.parse(uri).trust_domain


def pin_of(spki: bytes) -> str:
    """How people compare a key: the SHA-256 of its SubjectPublicKeyInfo, as pins are written (RFC 7469)."""
    return str(SpkiHash.of_spki(spki))


@frozen(eq=False, repr=False)
class CaRequest:
    """A CSR that asks to become an issuing CA of one trust domain, and keeps to its rules."""

    der: bytes
    trust_domain: TrustDomain
    generation: int
    subject: x509.Name
    public_key: PublicKey
    spki: bytes

    @classmethod
    def parse(
        cls, data: bytes, trust_domain: TrustDomain, forbidden_keys: Collection[bytes] = ()
    ) -> Self:
        """Read a CSR in PEM or DER. ``forbidden_keys`` are SubjectPublicKeyInfos: the root's own.

        Raises :class:`Malformed` where it is no CSR at all, and :class:`Refused` with every rule that it breaks.
        """
        csr = load_csr(data)
        try:
            asked = x509.load_der_x509_csr(csr.der)
            _ = asked.extensions, asked.subject
        except HOSTILE_INPUT:
            raise Malformed(f"the CSR's subject or extensions cannot be decoded: {_ANEW}") from None
        problems: list[Problem] = []
        key = proven_key(csr, forbidden_keys, problems)
        problems += _subject_problems(asked.subject, trust_domain)
        problems += _extension_problems(asked, trust_domain)
        if problems or key is None:
            raise Refused(dict.fromkeys(problems))
        generation = generation_of(asked.subject)
        return cls(csr.der, trust_domain, generation, asked.subject, key.public_key, key.spki)

    @property
    def key_id(self) -> str:
        """How the store, revocations and CRLs name the CA that it asks for."""
        return key_id(self.public_key)

    @property
    def fingerprint(self) -> str:
        """Of the whole CSR, for people to compare on both machines."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    @property
    def pin(self) -> str:
        """Of its key: the certificate has the same."""
        return pin_of(self.spki)


def _subject_problems(subject: x509.Name, trust_domain: TrustDomain) -> list[Problem]:
    generation = generation_of(subject)
    wanted = ca_subject(ISSUING_NAME, trust_domain, generation)
    if generation and subject == wanted:
        return []
    shown = printable(subject.rfc4514_string()) or "empty"
    right = ca_subject(ISSUING_NAME, trust_domain, generation or 1).rfc4514_string()
    return [
        _problem(
            Code.PROFILE_VIOLATION,
            f"the CSR's subject is {shown}, and that of an issuing CA of {trust_domain} is like {right}",
            "RFC 5280 section 4.1.2.6",
        )
    ]


def _extension_problems(
    asked: x509.CertificateSigningRequest, trust_domain: TrustDomain
) -> list[Problem]:
    problems = []
    names = extension(asked, x509.SubjectAlternativeName)
    if names is None or list(names) != [x509.UniformResourceIdentifier(str(trust_domain.id))]:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
        others = [uri for uri in uris if uri != str(trust_domain.id)]
        found = printable(", ".join(others or uris), 200) or "nothing"
        problems.append(
            _problem(
                Code.WRONG_TRUST_DOMAIN if others else Code.WRONG_URI,
                f"the CSR asks for {found} as its names, and this root certifies CAs of {trust_domain.id} and of "
                "nothing else",
                "X509-SVID section 3.2",
            )
        )
    constraints = extension(asked, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        problems.append(
            _problem(
                Code.NOT_A_CA, "the CSR does not ask to become a CA", "RFC 5280 section 4.2.1.9"
            )
        )
    elif constraints.path_length != ISSUING.path_length:
        length = "any" if constraints.path_length is None else str(constraints.path_length)
        problems.append(
            _problem(
                Code.PATH_TOO_LONG,
                f"the CSR asks for a path length of {length}, and no CA stands below an issuing CA: it is 0",
                "RFC 5280 section 4.2.1.9",
            )
        )
    usage = extension(asked, x509.KeyUsage)
    if usage != ISSUING.key_usage:
        problems.append(
            _problem(
                Code.WRONG_USAGE,
                "the CSR asks for other key usages than keyCertSign and cRLSign",
                "RFC 5280 section 4.2.1.3",
            )
        )
    return problems


def _problem(code: Code, detail: str, rule: str) -> Problem:
    return Problem(code, detail, _ANEW, rule, "csr")
