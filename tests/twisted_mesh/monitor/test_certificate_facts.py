"""What a monitor reads of a certificate, held against what cryptography reads of the same bytes."""

import ipaddress
from contextlib import suppress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from pki.keys import key_id
from tests.authorities import DAY, NOW, key, mesh
from twisted_mesh.monitor.certificate_facts import facts_of, serial_bytes, tbs_of


def made(*names: x509.GeneralName, serial: int = 77, ca: bool = False) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key(1).public_key)
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key(1).private_key, hashes.SHA256())


def test_all_that_a_certificate_of_the_mesh_has() -> None:
    leaf = mesh().leaf()
    facts = facts_of(leaf.tbs_certificate_bytes)
    assert facts.serial == leaf.serial_number
    assert facts.issuer == leaf.issuer.public_bytes()
    assert facts.not_before == leaf.not_valid_before_utc.timestamp()
    assert facts.not_after == leaf.not_valid_after_utc.timestamp()
    assert facts.key.hex() == key_id(leaf.public_key())
    assert facts.spiffe_id == "spiffe://mesh.local/service/backend"
    assert not facts.is_ca
    assert facts_of(mesh().issuing.certificate.tbs_certificate_bytes).is_ca


_NAMES = st.lists(
    st.one_of(
        st.sampled_from(
            ["spiffe://mesh.local/a", "https://x.example", "urn:x", "SPIFFE://mesh.local/B"]
        ).map(x509.UniformResourceIdentifier),
        st.from_regex(r"[a-zA-Z0-9]{1,8}\.example", fullmatch=True).map(x509.DNSName),
        st.ip_addresses().map(x509.IPAddress),
        st.just(x509.RFC822Name("a@b.example")),
    ),
    max_size=5,
)


@given(_NAMES, st.integers(1, 2**150), st.booleans())
def test_names_of_every_kind(names: list[x509.GeneralName], serial: int, ca: bool) -> None:
    facts = facts_of(made(*names, serial=serial, ca=ca).tbs_certificate_bytes)
    uris = [n.value for n in names if isinstance(n, x509.UniformResourceIdentifier)]
    assert list(facts.uris) == uris
    assert list(facts.dns_names) == [n.value.lower() for n in names if isinstance(n, x509.DNSName)]
    addresses = [str(n.value) for n in names if isinstance(n, x509.IPAddress)]
    assert list(facts.ip_addresses) == addresses
    assert facts.serial == serial
    assert facts.is_ca is ca
    is_one = len(uris) == 1 and uris[0].startswith("spiffe://")
    assert facts.spiffe_id == (uris[0] if is_one else "")


def test_the_tbs_in_a_certificate() -> None:
    leaf = mesh().leaf()
    assert tbs_of(leaf.public_bytes(Encoding.DER)) == leaf.tbs_certificate_bytes


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused_and_break_nothing(data: bytes) -> None:
    for read in (facts_of, tbs_of):
        with pytest.raises(Malformed):
            read(data)


@given(st.data())
def test_a_damaged_certificate_is_read_or_refused_and_breaks_nothing(data: st.DataObject) -> None:
    tbs = bytearray(mesh().leaf().tbs_certificate_bytes)
    for _ in range(data.draw(st.integers(1, 3))):
        tbs[data.draw(st.integers(0, len(tbs) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(tbs[: data.draw(st.integers(0, len(tbs)))])
    for der in (bytes(tbs), cut):
        with suppress(Malformed):
            facts_of(der)


def test_what_cannot_be_a_certificate_is_refused() -> None:
    tbs = mesh().leaf().tbs_certificate_bytes
    with pytest.raises(Malformed, match="damaged"):
        facts_of(tbs + b"\0")
    with pytest.raises(Malformed, match="damaged"):
        facts_of(tbs[:-1])


@pytest.mark.parametrize("years", [20, 60])
def test_both_ways_to_write_a_year(years: int) -> None:
    name = x509.Name([])
    end = NOW + timedelta(days=365 * years)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key(1).public_key)
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(end)
        .sign(key(1).private_key, hashes.SHA256())
    )
    assert facts_of(cert.tbs_certificate_bytes).not_after == end.timestamp()


@given(st.integers(-(2**160), 2**160))
def test_a_serial_is_kept_as_der_has_it(serial: int) -> None:
    assert int.from_bytes(serial_bytes(serial), "big", signed=True) == serial


def test_more_names_than_anybody_has_are_refused() -> None:
    names = [x509.IPAddress(ipaddress.ip_address(n)) for n in range(1001)]
    with pytest.raises(Malformed):
        facts_of(made(*names).tbs_certificate_bytes)
