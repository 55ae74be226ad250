"""``pki-inspect verify`` for each purpose: the web's rules, our own leaves, several names, and how deep."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.keys import KeyAlgorithm
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339
from tests.authorities import HOUR, NOW, forge, key, mesh, pem, sign_crl
from tests.twisted_mesh.cli import test_inspect
from tests.twisted_mesh.cli.test_inspect import codes, refused, run, verify

here = test_inspect.here
ENDS = ("server", "client")


def names(
    *held: x509.GeneralName,
) -> dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]]:
    return {x509.SubjectAlternativeName: (x509.SubjectAlternativeName(held), False)}


@pytest.fixture
def shop(here: Path) -> str:
    """A server of the web: no SPIFFE ID, and names of each kind."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    cert = forge(
        mesh().issuing,
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")]),
        replace={
            **names(
                x509.DNSName("shop.example"),
                x509.DNSName("*.shop.example"),
                x509.RFC822Name("owner@shop.example"),
            ),
            x509.ExtendedKeyUsage: (usage, False),
        },
    )
    (here / "shop.pem").write_bytes(certificates_pem([cert, mesh().issuing.certificate]))
    return "shop.pem"


def test_a_server_of_the_web_is_no_workload(shop: str) -> None:
    verdict = verify(shop, "--purpose", "server", status=0)
    assert [link["what"] for link in verdict["chain"]][1:] == ["issuing CA", "root CA"]
    assert all(link["signed_by"]["ok"] and not link["problems"] for link in verdict["chain"])
    assert "not-an-svid" in codes(verify(shop, status=1))
    assert codes(verify(shop, "--purpose", "client", status=1)) == ["wrong-usage"]
    assert codes(verify(shop, "--purpose", "ca", status=1)) == ["not-a-ca"]
    verify(shop, "--purpose", "any", status=0)


@pytest.mark.parametrize("purpose", ENDS)
def test_all_names_must_match(shop: str, purpose: str) -> None:
    good = (
        "--hostname",
        "shop.example",
        "--hostname",
        "www.shop.example",
        "--email",
        "owner@SHOP.example",
    )
    status = int(purpose == "client")
    assert (
        codes(verify(shop, "--purpose", purpose, *good, status=status)) == ["wrong-usage"] * status
    )
    wrong = ("--hostname", "a.b.shop.example", "--ip", "127.0.0.1", "--email", "Owner@shop.example")
    found = verify(shop, "--purpose", purpose, *good, *wrong, status=1)
    assert codes(found) == ["wrong-usage"] * status + ["name-mismatch"] * 3


@pytest.mark.parametrize("purpose", [*ENDS, "any"])
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.ED25519])
def test_our_own_leaves_are_good_for_either_end(
    here: Path, purpose: str, algorithm: KeyAlgorithm
) -> None:
    ours = mesh(
        TrustDomain(f"{algorithm}.example"), key("root", algorithm), key("issuing", algorithm)
    )
    leaf = ours.leaf(leaf_key=key("leaf", algorithm))
    (here / "own.pem").write_bytes(certificates_pem([leaf, ours.issuing.certificate]))
    (here / "own.crt").write_bytes(ours.bundle.to_pem())
    verify("own.pem", "--purpose", purpose, roots="own.crt", status=0)
    (here / "ca.pem").write_bytes(certificates_pem([ours.issuing.certificate]))
    verify("ca.pem", "--purpose", "ca", roots="own.crt", status=0)


def test_our_own_leaf_is_a_server_with_its_names() -> None:
    verify(
        "svid.pem", "--purpose", "server", "--hostname", "localhost", "--ip", "127.0.0.1", status=0
    )
    found = verify("svid.pem", "--purpose", "server", "--hostname", "api.example", status=1)
    assert codes(found) == ["name-mismatch"]


@pytest.mark.parametrize("purpose", ENDS)
def test_what_is_wrong_with_our_own_leaf_the_mesh_knows_best(purpose: str) -> None:
    late = rfc3339(NOW + 2 * HOUR)
    assert codes(verify("svid.pem", "--purpose", purpose, status=1, at=late)) == ["expired"]
    assert codes(verify("leaf.pem", "--purpose", purpose, status=1)) == ["incomplete-chain"]


def test_a_ca_is_good_for_what_it_may_issue() -> None:
    verify("issuing.pem", "--purpose", "ca", status=0)
    verify("root.crt", "--purpose", "ca", status=0)
    assert codes(verify("svid.pem", "--purpose", "ca", status=1)) == ["not-a-ca"]
    assert set(codes(verify("issuing.pem", "--purpose", "server", status=1))) == {"wrong-usage"}


@pytest.mark.parametrize("purpose", ["svid", "server", "client", "any"])
def test_depth_is_demanded_for_every_purpose(purpose: str) -> None:
    verify("svid.pem", "--purpose", purpose, "--max-depth", "1", status=0)
    found = verify("svid.pem", "--purpose", purpose, "--max-depth", "0", status=1)
    assert codes(found) == ["path-too-long"]


def test_crls_count_for_servers_of_the_web(here: Path, shop: str) -> None:
    cert = x509.load_pem_x509_certificate((here / shop).read_bytes())
    serials = {"clean.crl": 5, "revoked.crl": cert.serial_number}
    for name, serial in serials.items():
        (here / name).write_bytes(sign_crl(mesh().issuing, serials=[serial]))
    (here / "root.crl").write_bytes(pem(sign_crl(mesh().root), "X509 CRL"))
    common = (shop, "--purpose", "server", "--crl", "root.crl")
    verify(*common, "--crl", "clean.crl", status=0)
    assert codes(verify(*common, "--crl", "revoked.crl", status=1)) == ["revoked"]
    assert codes(verify(*common, status=1)) == ["unknown-revocation"]
    (here / "unnumbered.crl").write_bytes(sign_crl(mesh().issuing, number=None))
    options = ("--roots", "root.crt", "--at", rfc3339(NOW))
    said = refused("verify", *common, "--crl", "unnumbered.crl", *options)
    assert said == "unnumbered.crl: it has no number (RFC 5280 section 5.2.3)"


def test_a_time_has_fractions_and_an_offset(shop: str) -> None:
    at = "2026-11-23T11:59:59.999999+01:00"
    verify(shop, "--purpose", "server", status=0, at=at)
    verify(shop, "--purpose", "server", status=0, at="2026-11-23T06:00:00-05:00")
    verify(shop, "--purpose", "server", status=0, at="2026-11-23T06:00:00.5-05:00")
    late = "2026-11-23T06:00:01-05:00"
    assert codes(verify(shop, "--purpose", "server", status=1, at=late)) == ["expired"]


@pytest.mark.parametrize(
    "address", ["", "owner", "@shop.example", "a@b@c", "a b@c", "é@shop.example"]
)
def test_what_is_no_mail_address_is_not_judged_by(address: str) -> None:
    said = refused("verify", "svid.pem", "--roots", "root.crt", "--email", address)
    assert said.startswith("--email: ")
    assert "write it like somebody@example.org" in said


def test_the_text_names_the_purpose(shop: str) -> None:
    result = run("verify", shop, "--roots", "root.crt", "--purpose", "server", "--at", rfc3339(NOW))
    assert "verdict: valid as server at 2026-11-23T10:00:00Z" in result.stdout
