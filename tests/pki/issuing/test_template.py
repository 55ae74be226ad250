"""Templates: what is filled in is read back, and nothing else may differ."""

from datetime import UTC, datetime

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from pki.der import SEQUENCE, element
from pki.errors import Malformed
from pki.issuing.profile import ISSUING, ROOT, WORKLOAD, Profile
from pki.issuing.template import Fields, Template
from pki.keys import KeyAlgorithm, key_identifier, spki_der
from pki.validity import Validity
from tests.authorities import BACKEND, forge, key, mesh
from tests.pki.strategies import mutated
from twisted_mesh.testing import Extensions, names

ISSUER = mesh().issuing
LEAF = forge(ISSUER)
TEMPLATE = Template.cut(LEAF.tbs_certificate_bytes)
FIELDS = TEMPLATE.read(LEAF.tbs_certificate_bytes)

moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
sequences = st.binary(max_size=400).map(lambda content: element(SEQUENCE, content))
fields = st.builds(
    Fields,
    serial=st.integers(-(2**160), 2**160),
    validity=st.builds(Validity, moments, moments),
    subject=sequences,
    spki=sequences,
    key_identifier=st.binary(min_size=20, max_size=20),
    names=st.lists(st.tuples(st.integers(0x80, 0x88), st.binary(max_size=300)), max_size=4).map(
        tuple
    ),
)


@given(fields)
def test_what_is_filled_in_is_read_back(filled: Fields) -> None:
    tbs = TEMPLATE.fill(filled)
    assert TEMPLATE.read(tbs) == filled
    assert TEMPLATE.fill_and_read(filled) == (tbs, filled)


@given(fields, st.binary(max_size=30), st.sampled_from(["subject", "spki", "key_identifier"]))
def test_what_does_not_fit_its_gap_is_read_as_what_it_says_or_not_at_all(
    filled: Fields, wrong: bytes, name: str
) -> None:
    try:
        tbs, found = TEMPLATE.fill_and_read(evolve(filled, **{name: wrong}))
    except Malformed:
        return
    assert TEMPLATE.fill(found) == tbs


@pytest.mark.parametrize(
    ("cert", "profile"),
    [
        (LEAF, WORKLOAD),
        (forge(ISSUER, subject=x509.Name([])), WORKLOAD),
        (forge(mesh().root, ISSUING), ISSUING),
        (forge(None, ROOT), ROOT),
    ],
)
def test_a_template_of_any_profile_gives_back_what_it_was_cut_out_of(
    cert: x509.Certificate, profile: Profile
) -> None:
    template = Template.cut(cert.tbs_certificate_bytes)
    found = template.read(cert.tbs_certificate_bytes)
    assert template.fill(found) == cert.tbs_certificate_bytes
    assert template.is_nameless == (not cert.subject.rdns)
    assert found.serial == cert.serial_number
    assert found.validity == Validity(cert.not_valid_before_utc, cert.not_valid_after_utc)
    assert found.subject == cert.subject.public_bytes()
    assert found.spki == spki_der(cert.public_key())


@given(mutated(LEAF.tbs_certificate_bytes))
def test_a_damaged_draft_is_read_as_what_it_says_or_not_at_all(tbs: bytes) -> None:
    try:
        found = TEMPLATE.read(tbs)
    except Malformed:
        return
    assert TEMPLATE.fill(found) == tbs


@given(st.binary())
def test_bytes_break_a_template_only_as_malformed(data: bytes) -> None:
    for read in (TEMPLATE.read, Template.cut):
        with pytest.raises(Malformed):
            read(data)


@pytest.mark.parametrize(
    "other",
    [
        forge(ISSUER, replace={x509.KeyUsage: (ISSUING.key_usage, True)}),
        forge(ISSUER, replace={x509.BasicConstraints: (ISSUING.basic_constraints, True)}),
        forge(ISSUER, replace={x509.ExtendedKeyUsage: None}),
        forge(mesh().root),
        forge(ISSUER, subject=x509.Name([])),
        forge(
            ISSUER,
            replace={
                x509.UnrecognizedExtension: (
                    x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.99"), b""),
                    False,
                )
            },
        ),
    ],
)
def test_a_draft_of_another_shape_is_not_read(other: x509.Certificate) -> None:
    with pytest.raises(Malformed, match="differs from its template"):
        TEMPLATE.read(other.tbs_certificate_bytes)


@pytest.mark.parametrize(
    "replace",
    [
        {x509.SubjectKeyIdentifier: None},
        {x509.SubjectAlternativeName: None},
        {x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(b"short"), False)},
        {x509.SubjectKeyIdentifier: (x509.SubjectKeyIdentifier(bytes(20)), True)},
    ],
)
def test_a_certificate_without_the_gaps_gives_no_template(replace: Extensions) -> None:
    with pytest.raises(Malformed, match="no template"):
        Template.cut(forge(ISSUER, replace=replace).tbs_certificate_bytes)


def test_an_id_in_a_name_does_not_pass_for_the_extension() -> None:
    odd = forge(
        ISSUER, replace={x509.SubjectAlternativeName: (names(str(BACKEND), "U\x1d\x11"), False)}
    )
    found = Template.cut(odd.tbs_certificate_bytes).read(odd.tbs_certificate_bytes)
    assert len(found.names) == 2


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_key_is_identified_by_its_bits(algorithm: KeyAlgorithm) -> None:
    public_key = key("leaf", algorithm).public_key
    expected = x509.SubjectKeyIdentifier.from_public_key(public_key)
    assert key_identifier(spki_der(public_key)) == expected.digest


def test_fields_that_differ_make_other_bytes() -> None:
    other = evolve(FIELDS, serial=FIELDS.serial + 1)
    assert TEMPLATE.fill(other) != TEMPLATE.fill(FIELDS)
