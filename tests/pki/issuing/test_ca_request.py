"""The CSR of an issuing CA: what it asks for, and what makes a root refuse one."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given

from pki.errors import Malformed, PkiError, Refused
from pki.issuing.ca_request import CaRequest
from pki.issuing.profile import ISSUING, ISSUING_NAME, ca_subject
from pki.keys import KeyAlgorithm, spki_der
from pki.svid.names import alternative_names
from tests.authorities import MESH, OTHER, ca_request, key, rsa_key, signed_anew
from tests.pki.strategies import mutated

PEM = serialization.Encoding.PEM
CSR = ca_request(key(), MESH, 3)
Builder = x509.CertificateSigningRequestBuilder


def refusals(csr: bytes, trust_domain: object = MESH, **options: object) -> list[str]:
    with pytest.raises(Refused) as refusal:
        CaRequest.parse(csr, trust_domain, **options)  # type: ignore[arg-type]
    return [problem.code for problem in refusal.value.problems]


def asking(
    *,
    subject: x509.Name | None = None,
    names: x509.SubjectAlternativeName | None = None,
    constraints: x509.BasicConstraints | None = ISSUING.basic_constraints,
    usage: x509.KeyUsage | None = ISSUING.key_usage,
    private_key: rsa.RSAPrivateKey | None = None,
) -> bytes:
    own = ca_subject(ISSUING_NAME, MESH, 1)
    builder = Builder().subject_name(own if subject is None else subject)
    builder = builder.add_extension(names or alternative_names(MESH.id), critical=False)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    signer = private_key or key().private_key
    return builder.sign(signer, KeyAlgorithm.EC_P256.hash).public_bytes(PEM)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_what_is_built_is_read_back(algorithm: KeyAlgorithm) -> None:
    made = key("of a CSR", algorithm)
    found = CaRequest.parse(ca_request(made, MESH, 7), MESH)
    assert (found.generation, found.trust_domain) == (7, MESH)
    assert found.spki == spki_der(made.public_key)
    assert found.subject == ca_subject(ISSUING_NAME, MESH, 7)
    assert found.fingerprint.startswith("sha256:")
    assert found.pin.startswith("sha256/")


def test_it_asks_for_all_that_the_certificate_is_to_have() -> None:
    asked = x509.load_pem_x509_csr(CSR)
    found = {each.oid: (each.value, each.critical) for each in asked.extensions}
    assert found[x509.BasicConstraints.oid] == (x509.BasicConstraints(True, 0), True)
    assert found[x509.KeyUsage.oid] == (ISSUING.key_usage, True)
    assert found[x509.SubjectAlternativeName.oid] == (alternative_names(MESH.id), False)
    assert found[x509.SubjectKeyIdentifier.oid] == (
        x509.SubjectKeyIdentifier.from_public_key(key().public_key),
        False,
    )


ODD: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "another trust domain's": (
        lambda: ca_request(key(), OTHER, 1),
        ["profile-violation", "wrong-trust-domain"],
    ),
    "no CA": (lambda: asking(constraints=x509.BasicConstraints(False, None)), ["not-a-ca"]),
    "no constraints": (lambda: asking(constraints=None), ["not-a-ca"]),
    "a path length of one": (
        lambda: asking(constraints=x509.BasicConstraints(True, 1)),
        ["path-too-long"],
    ),
    "no path length": (
        lambda: asking(constraints=x509.BasicConstraints(True, None)),
        ["path-too-long"],
    ),
    "no usage": (lambda: asking(usage=None), ["wrong-usage"]),
    "a workload's name": (
        lambda: asking(names=alternative_names(MESH.member("service", "x"))),
        ["wrong-trust-domain"],
    ),
    "a host's name too": (
        lambda: asking(names=alternative_names(MESH.id, ["a.example"])),
        ["wrong-uri"],
    ),
    "another subject": (
        lambda: asking(subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])),
        ["profile-violation"],
    ),
    "no subject": (lambda: asking(subject=x509.Name([])), ["profile-violation"]),
    "a weak key": (lambda: asking(private_key=rsa_key(1024)), ["weak-key"]),
    "everything": (
        lambda: asking(
            subject=x509.Name([]),
            constraints=None,
            usage=None,
            names=alternative_names(OTHER.id),
        ),
        ["profile-violation", "wrong-trust-domain", "not-a-ca", "wrong-usage"],
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_does_not_fit_is_refused_with_every_reason(what: str) -> None:
    make, codes = ODD[what]
    assert refusals(make()) == codes


def test_a_csr_without_proof_is_refused() -> None:
    another = key("another").private_key
    assert isinstance(another, ec.EllipticCurvePrivateKey)
    body = x509.load_pem_x509_csr(CSR).tbs_certrequest_bytes
    assert refusals(signed_anew(body, another)) == ["no-possession"]


def test_the_roots_own_key_is_no_issuing_cas() -> None:
    assert refusals(CSR, forbidden_keys={spki_der(key().public_key)}) == ["forbidden-key"]


@pytest.mark.parametrize("data", [b"", b"x", CSR + CSR, CSR[:-80]])
def test_what_is_no_csr_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Malformed):
        CaRequest.parse(data, MESH)


@given(mutated(CSR))
def test_nothing_but_our_own_errors_for_whatever_bytes(data: bytes) -> None:
    with suppress(PkiError):
        CaRequest.parse(data, MESH)
