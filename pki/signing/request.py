"""The CSR of an issuing CA whose root is elsewhere, which its key is asked to sign (RFC 2986)."""

from cryptography import x509

from pki.errors import HOSTILE_INPUT
from pki.issuing.profile import ISSUING, ISSUING_NAME, ca_subject, generation_of
from pki.issuing.unsigned import assemble, placeholder
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import HeldKey, Verdict
from pki.signing.policy import SigningPolicy
from pki.svid.names import alternative_names


def judge_request(info: bytes, key: HeldKey, policy: SigningPolicy) -> Verdict:
    """Whether ``key`` signs it: it is what this program writes, for this key and trust domain, to the byte.

    Raises :class:`NotSignable` and :class:`SigningRefused`.
    """
    try:
        found = x509.load_der_x509_csr(assemble(info, key.algorithm.identifier))
        generation = generation_of(found.subject)
    except HOSTILE_INPUT as error:
        raise NotSignable(f"it begins as a CSR and cannot be decoded ({error})") from None
    if key.purpose != "issuing":
        raise SigningRefused("purpose", "only an issuing CA's key signs a CSR")
    wanted = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(ca_subject(ISSUING_NAME, policy.trust_domain, generation))
        .add_extension(ISSUING.basic_constraints, critical=True)
        .add_extension(ISSUING.key_usage, critical=True)
        .add_extension(alternative_names(policy.trust_domain.id), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key), critical=False)
        .sign(placeholder(key.algorithm.kind.private_class, key.public_key), key.algorithm.hash)
    )
    if not generation or wanted.tbs_certrequest_bytes != info:
        raise SigningRefused(
            "csr",
            f"the CSR is not that of an issuing CA of {policy.trust_domain} with this key",
            "take the CSR that mesh-ctl ca root csr writes",
        )
    return Verdict("csr", {"generation": generation})
