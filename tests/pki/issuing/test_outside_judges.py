"""What others say of the certificates that the authority issues: openssl, certtool and pkilint."""

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pki.keys import KeyAlgorithm
from pki.spiffe import SpiffeId
from pki.svid.x509svid import certificates_pem
from tests.authorities import (
    BACKEND,
    HOUR,
    MESH,
    Mesh,
    der,
    forge,
    forge_issuing,
    forge_root,
    key,
    mesh,
)
from tests.tools import IN_CI, require_tool

pytestmark = pytest.mark.slow

ALGORITHMS = list(KeyAlgorithm)
#: What openssl before 3.5 and certtool before 3.8.10 have heard of.
OLDER = [algorithm for algorithm in ALGORITHMS if not algorithm.kind.is_post_quantum]


def pairs(algorithms: list[KeyAlgorithm]) -> list[Any]:
    """The mesh's own two for every run, and the others for make interop."""
    own = [
        (KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P256),
        (KeyAlgorithm.RSA_2048, KeyAlgorithm.EC_P256),
    ]
    return [
        pair if pair in own else pytest.param(*pair, marks=pytest.mark.interop)
        for pair in product(algorithms, algorithms)
    ]


#: certtool has a clock of its own and cannot be told another time.
WALL = datetime.now(UTC)
NAMELESS = MESH.member("service", "x" * 65)


def authorities(root: KeyAlgorithm, issuing: KeyAlgorithm) -> Mesh:
    return mesh(MESH, key("root", root), key("issuing", issuing), WALL)


@cache
def leaves(root: KeyAlgorithm, issuing: KeyAlgorithm) -> dict[str, x509.Certificate]:
    """A leaf of each algorithm, one with host names and one whose subject is empty."""
    made = authorities(root, issuing)

    def leaf(
        algorithm: KeyAlgorithm, spiffe_id: SpiffeId = BACKEND, **names: Any
    ) -> x509.Certificate:
        public_key = key("leaf", algorithm).public_key
        drafted = made.issuing.draft(public_key, spiffe_id, WALL, HOUR, **names)
        return asyncio.run(made.issuing.sign(drafted))

    return {
        **{algorithm: leaf(algorithm) for algorithm in OLDER},
        "without a subject": leaf(KeyAlgorithm.EC_P256, NAMELESS),
        "with host names": leaf(
            KeyAlgorithm.EC_P384,
            dns_names=["backend.mesh.local", "db.example"],
            ip_addresses=[IPv4Address("127.0.0.1"), IPv6Address("::1")],
        ),
    }


def run(*command: str | Path, stdin: bytes = b"") -> str:
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    said = (result.stdout + result.stderr).decode()
    assert result.returncode == 0, said
    return said


@pytest.mark.parametrize(("root", "issuing"), pairs(OLDER))
def test_openssl_verifies_every_leaf_strictly(
    root: KeyAlgorithm, issuing: KeyAlgorithm, tmp_path: Path
) -> None:
    openssl = require_tool("openssl")
    made = authorities(root, issuing)
    (tmp_path / "root.pem").write_bytes(made.bundle.to_pem())
    (tmp_path / "issuing.pem").write_bytes(certificates_pem([made.issuing.certificate]))
    files = []
    for name, leaf in leaves(root, issuing).items():
        files.append(tmp_path / f"{name}.pem")
        files[-1].write_bytes(certificates_pem([leaf]))
    for purpose in ("sslclient", "sslserver"):
        said = run(
            openssl, "verify", "-x509_strict", "-check_ss_sig", "-policy_check",
            "-purpose", purpose,
            "-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "issuing.pem", *files,
        )  # fmt: skip
        assert said.count(": OK") == len(files)


@pytest.mark.parametrize(("root", "issuing"), pairs(OLDER))
def test_certtool_verifies_every_leaf(
    root: KeyAlgorithm, issuing: KeyAlgorithm, tmp_path: Path
) -> None:
    certtool = require_tool("certtool")
    made = authorities(root, issuing)
    (tmp_path / "root.pem").write_bytes(made.bundle.to_pem())
    for leaf in leaves(root, issuing).values():
        said = run(
            certtool, "--verify", "--verify-profile=medium",
            "--load-ca-certificate", tmp_path / "root.pem",
            stdin=certificates_pem([leaf, made.issuing.certificate]),
        )  # fmt: skip
        assert "Verified. The certificate is trusted." in said


def test_the_judges_tell_a_bad_chain(tmp_path: Path) -> None:
    made = authorities(KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P256)
    stranger = forge_issuing(forge_root(90), 91, end=WALL + HOUR)
    (tmp_path / "root.pem").write_bytes(made.bundle.to_pem())
    chain = certificates_pem([forge(stranger, end=WALL + HOUR), stranger.certificate])
    (tmp_path / "chain.pem").write_bytes(chain)
    openssl, certtool = require_tool("openssl"), require_tool("certtool")
    root = tmp_path / "root.pem"
    for command in (
        (
            openssl,
            "verify",
            "-CAfile",
            root,
            "-untrusted",
            tmp_path / "chain.pem",
            tmp_path / "chain.pem",
        ),
        (certtool, "--verify", "--load-ca-certificate", root, "--infile", tmp_path / "chain.pem"),
    ):
        assert subprocess.run(command, capture_output=True).returncode != 0


#: pkilint holds URIs to RFC 3986 with a host as RFC 5280 wants it, and calls every spiffe:// URI
#: invalid. This one finding is waived, there, and nothing else.
WAIVED = ("pkix.invalid_uri_syntax", ".subjectAltName.0.uniformResourceIdentifier")


@cache
def pkilint() -> Any:
    if not IN_CI:
        pytest.importorskip("pkilint")
    from pkilint.pkix import certificate, extension, name

    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(
            name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
        ),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


def findings(cert: x509.Certificate) -> Iterator[tuple[str, str, str]]:
    """The code, the node and the message of everything that pkilint has to say, notices included."""
    linter = pkilint()
    from pkilint.loader import RFC5280CertificateDocumentLoader
    from pkilint.validation import ValidationFindingSeverity

    document = RFC5280CertificateDocumentLoader().load_der_document(der(cert), "issued")
    for result in linter.validate(document.root):
        for found in result.finding_descriptions:
            if found.finding.severity <= ValidationFindingSeverity.NOTICE:
                yield found.finding.code, result.node.path, found.message or ""


def uris(cert: x509.Certificate) -> int:
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return len(names.get_values_for_type(x509.UniformResourceIdentifier))


def unwaived(cert: x509.Certificate) -> list[tuple[str, str, str]]:
    found = list(findings(cert))
    waived = [f for f in found if f[0] == WAIVED[0] and f[1].endswith(WAIVED[1])]
    assert len(waived) == uris(cert) == 1, found
    return [f for f in found if f not in waived]


@pytest.mark.parametrize(("issuer", "subject"), pairs(ALGORITHMS))
def test_pkilint_finds_no_fault_but_the_one_that_is_waived(
    issuer: KeyAlgorithm, subject: KeyAlgorithm
) -> None:
    made = authorities(issuer, subject)
    for cert in (
        made.root.certificate,
        made.issuing.certificate,
        asyncio.run(
            made.issuing.sign(
                made.issuing.draft(key("leaf", subject).public_key, BACKEND, WALL, HOUR)
            )
        ),
    ):
        assert unwaived(cert) == []


@pytest.mark.parametrize("kind", ["without a subject", "with host names"])
def test_pkilint_finds_no_fault_with_other_names(kind: str) -> None:
    assert unwaived(leaves(KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P256)[kind]) == []


def test_pkilint_calls_localhost_no_domain_name() -> None:
    """The one other remark that it has on what the mesh issues: a host name of a single label.

    RFC 5280 section 4.2.1.6 asks for the preferred name syntax, which allows it.
    """
    made = authorities(KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P256)
    drafted = made.issuing.draft(
        key("leaf").public_key, BACKEND, WALL, HOUR, dns_names=["localhost"]
    )
    ((code, node, _),) = unwaived(asyncio.run(made.issuing.sign(drafted)))
    assert (code, node.rpartition(".")[2]) == ("pkix.invalid_domain_name_syntax", "dNSName")


def test_pkilint_still_sees_what_is_not_waived() -> None:
    bad = forge_issuing(mesh().root, 91, replace={x509.SubjectKeyIdentifier: None}).certificate
    assert unwaived(bad)
