"""Every known extension is decoded for people, and what cannot be decoded is shown as it came."""

import contextlib
import struct
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
    SubjectInformationAccessOID,
)
from hypothesis import given
from hypothesis import strategies as st

from pki.der import element
from pki.errors import PkiError
from pki.inspect.describe import describe_certificate
from pki.inspect.extensions import Extension, read_extensions
from tests.authorities import NOW, forge, key, mesh

OID = x509.ObjectIdentifier
SOMEBODY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "some\x1b[31mbody")])


def decoded(value: x509.ExtensionType, *, critical: bool = False) -> Extension:
    """What people see of ``value`` once it stands in a certificate."""
    cert = forge(mesh().issuing, replace={type(value): (value, critical)})
    wanted = value.oid.dotted_string
    (found,) = (e for e in describe_certificate(cert, NOW).extensions if e.oid == wanted)
    assert found.critical is critical
    assert found.value == value.public_bytes() or isinstance(value, x509.UnrecognizedExtension)
    return found


def usages(*set_: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in set_ for name in every.split()})


CASES: list[tuple[x509.ExtensionType, str, list[str]]] = [
    (x509.BasicConstraints(ca=False, path_length=None), "basicConstraints", ["CA: no"]),
    (
        x509.BasicConstraints(ca=True, path_length=3),
        "basicConstraints",
        ["CA: yes", "path length: 3"],
    ),
    (usages("digital_signature", "crl_sign"), "keyUsage", ["digitalSignature", "cRLSign"]),
    (
        usages("key_agreement", "encipher_only", "content_commitment"),
        "keyUsage",
        ["contentCommitment", "keyAgreement", "encipherOnly"],
    ),
    (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING, OID("1.2.3.4")]),
        "extKeyUsage",
        ["OCSPSigning", "1.2.3.4"],
    ),
    (
        x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier("spiffe://mesh.local/x"),
                x509.DNSName("evil\n.example"),
                x509.RFC822Name("a@b.example"),
                x509.IPAddress(ip_address("::1")),
                x509.DirectoryName(SOMEBODY),
                x509.RegisteredID(OID("1.2.3")),
                x509.OtherName(OID("1.2.3"), b"\x0c\x01a"),
            ]
        ),
        "subjectAltName",
        [
            "URI:spiffe://mesh.local/x",
            "DNS:evil\\n.example",
            "email:a@b.example",
            "IP:::1",
            "dirName:CN=some\\x1b[31mbody",
            "RID:1.2.3",
            "otherName:1.2.3 0C:01:61",
        ],
    ),
    (x509.IssuerAlternativeName([x509.DNSName("ca")]), "issuerAltName", ["DNS:ca"]),
    (x509.SubjectKeyIdentifier(b"\x01\xab"), "subjectKeyIdentifier", ["01:AB"]),
    (
        x509.AuthorityKeyIdentifier(b"\xff", [x509.DNSName("ca")], 258),
        "authorityKeyIdentifier",
        ["FF", "issuer: DNS:ca", "serial: 01:02"],
    ),
    (
        x509.NameConstraints(
            [
                x509.UniformResourceIdentifier("mesh.local"),
                x509.IPAddress(ip_network("10.0.0.0/8")),
            ],
            [x509.DNSName("bad.example")],
        ),
        "nameConstraints",
        ["permitted URI:mesh.local", "permitted IP:10.0.0.0/8", "excluded DNS:bad.example"],
    ),
    (
        x509.CertificatePolicies(
            [
                x509.PolicyInformation(OID("2.5.29.32.0"), None),
                x509.PolicyInformation(
                    OID("1.2.3"),
                    [
                        "https://cps",
                        x509.UserNotice(x509.NoticeReference("we", [1, 2]), "be\rware"),
                    ],
                ),
            ]
        ),
        "certificatePolicies",
        [
            "2.5.29.32.0 (anyPolicy)",
            "1.2.3",
            "1.2.3 CPS: https://cps",
            "1.2.3 notice: be\\rware",
            "1.2.3 notice of we: 1, 2",
        ],
    ),
    (
        x509.PolicyConstraints(1, 0),
        "policyConstraints",
        [
            "explicit policy required after 1 certificates",
            "policy mapping inhibited after 0 certificates",
        ],
    ),
    (x509.InhibitAnyPolicy(2), "inhibitAnyPolicy", ["after 2 certificates"]),
    (
        x509.CRLDistributionPoints(
            [
                x509.DistributionPoint(
                    [x509.UniformResourceIdentifier("http://ca/crl")],
                    None,
                    frozenset({x509.ReasonFlags.key_compromise}),
                    [x509.DirectoryName(SOMEBODY)],
                ),
                x509.DistributionPoint(
                    None,
                    x509.RelativeDistinguishedName(
                        [x509.NameAttribute(NameOID.COMMON_NAME, "crl1")]
                    ),
                    None,
                    None,
                ),
            ]
        ),
        "cRLDistributionPoints",
        [
            "URI:http://ca/crl",
            "CRL issuer: dirName:CN=some\\x1b[31mbody",
            "reasons: keyCompromise",
            "relative name: CN=crl1",
        ],
    ),
    (
        x509.FreshestCRL(
            [
                x509.DistributionPoint(
                    [x509.UniformResourceIdentifier("http://ca/d")], None, None, None
                )
            ]
        ),
        "freshestCRL",
        ["URI:http://ca/d"],
    ),
    (
        x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP,
                    x509.UniformResourceIdentifier("http://ocsp"),
                ),
                x509.AccessDescription(
                    AuthorityInformationAccessOID.CA_ISSUERS,
                    x509.UniformResourceIdentifier("http://ca"),
                ),
            ]
        ),
        "authorityInfoAccess",
        ["OCSP URI:http://ocsp", "caIssuers URI:http://ca"],
    ),
    (
        x509.SubjectInformationAccess(
            [
                x509.AccessDescription(
                    SubjectInformationAccessOID.CA_REPOSITORY,
                    x509.UniformResourceIdentifier("http://r"),
                )
            ]
        ),
        "subjectInfoAccess",
        ["caRepository URI:http://r"],
    ),
    (x509.TLSFeature([x509.TLSFeatureType.status_request]), "tlsFeature", ["status_request"]),
    (
        x509.PrecertPoison(),
        "precertificatePoison",
        ["this is a precertificate: no TLS program may accept it"],
    ),
    (
        x509.OCSPNoCheck(),
        "ocspNoCheck",
        ["the revocation of this OCSP responder is not checked"],
    ),
    (
        x509.PrivateKeyUsagePeriod(datetime(2026, 1, 2, 3, 4, 5), datetime(2027, 1, 2, 3, 4, 5)),  # noqa: DTZ001
        "privateKeyUsagePeriod",
        ["not before 2026-01-02T03:04:05Z", "not after 2027-01-02T03:04:05Z"],
    ),
    (x509.MSCertificateTemplate(OID("1.2.3"), 4, 5), "certificateTemplate", ["1.2.3 version 4.5"]),
    (x509.UnrecognizedExtension(OID("1.2.3.4.5"), b"\x05\0"), "1.2.3.4.5", []),
]


@pytest.mark.parametrize(("value", "name", "values"), CASES, ids=lambda case: type(case).__name__)
@pytest.mark.parametrize("critical", [False, True])
def test_is_decoded(
    value: x509.ExtensionType, name: str, values: list[str], critical: bool
) -> None:
    found = decoded(value, critical=critical)
    assert (found.name, list(found.values), found.damaged) == (name, values, False)


def test_timestamps_of_transparency_logs_are_decoded() -> None:
    millis = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * 1000)
    sct = b"\0" + b"\xaa" * 32 + struct.pack(">QH", millis, 0) + b"\x04\x03" + b"\0\x01\0"
    listed = struct.pack(">HH", len(sct) + 2, len(sct)) + sct
    value = x509.UnrecognizedExtension(OID("1.3.6.1.4.1.11129.2.4.2"), element(0x04, listed))
    found = decoded(value)
    assert found.name == "signedCertificateTimestamps"
    assert found.values == (f"2026-01-02T03:04:05Z by log {':'.join(['AA'] * 32)}",)


def test_a_damaged_one_shows_its_bytes_and_hides_no_other() -> None:
    broken = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\xde\xad")
    cert = forge(mesh().issuing, replace={x509.BasicConstraints: (broken, True)})
    shown = describe_certificate(cert, NOW)
    found = {extension.name: extension for extension in shown.extensions}
    assert found["basicConstraints"].damaged
    assert found["basicConstraints"].critical
    assert found["basicConstraints"].value == b"\xde\xad"
    assert found["keyUsage"].values == ("digitalSignature",)
    assert shown.spiffe_ids == ("spiffe://mesh.local/service/backend",)
    (remark,) = shown.remarks
    assert remark.startswith("its extension basicConstraints at byte 269 cannot be decoded: ")
    assert shown.unreadable == shown.remarks
    assert shown.is_ca is None


@given(st.binary())
def test_arbitrary_bytes_break_only_as_malformed(data: bytes) -> None:
    with contextlib.suppress(PkiError):
        read_extensions(data)


@given(st.sampled_from(CASES), st.binary(max_size=60))
def test_an_arbitrary_value_is_decoded_or_damaged(
    case: tuple[x509.ExtensionType, str, list[str]], value: bytes
) -> None:
    oid = x509.UnrecognizedExtension(case[0].oid, value)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(oid, critical=False).sign(
        key().private_key, key().algorithm.hash
    )
    (listed,) = (attribute.value for attribute in request.attributes)
    (found,) = read_extensions(listed)
    assert found.value == value
    assert all(text.isprintable() for text in found.values)
