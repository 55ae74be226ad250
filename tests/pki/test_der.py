"""Files are told apart before anything in them is decoded; private keys are not decoded at all."""

import base64
import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.asn1 import decode_der
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import example, given
from hypothesis import strategies as st

from pki.der import (
    Block,
    blocks,
    canonical_elements,
    canonical_spans,
    element,
    elements,
    generalized_time,
    integer,
    oid_content,
    oid_text,
    parse_time,
    pem,
    time,
)
from pki.errors import Malformed, PkiError
from tests.authorities import csr_builder, key, mesh, rsa_key

DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()


def labels(data: bytes) -> list[str]:
    return [block.label for block in blocks(data)]


@given(st.integers(0, 254).filter(lambda tag: tag & 0x1F != 0x1F), st.binary(max_size=70_000))
def test_an_element_of_der_is_read_back(tag: int, content: bytes) -> None:
    (found,) = elements(element(tag, content))
    assert (found.tag, found.content) == (tag, content)


@given(st.binary())
def test_der_breaks_only_as_malformed(data: bytes) -> None:
    with contextlib.suppress(PkiError):
        assert b"".join(part.whole for part in elements(data)) == data


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65535, 65536])
def test_a_length_may_be_longer_than_it_must(size: int) -> None:
    content = bytes(size)
    (found,) = elements(element(0x04, content))
    assert found.content == content
    for octets in range(1, 5):
        if size < 1 << 8 * octets:
            whole = bytes((0x04, 0x80 | octets)) + size.to_bytes(octets, "big") + content
            (found,) = elements(whole)
            assert found.content == content


@given(st.integers())
def test_an_integer_is_written_as_cryptography_reads_it(number: int) -> None:
    assert decode_der(int, integer(number)) == number
    (found,) = elements(integer(number))
    assert found.tag == 0x02


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_back_in_whole_seconds(moment: datetime) -> None:
    for written in (time(moment), generalized_time(moment)):
        (found,) = elements(written)
        assert parse_time(found.tag, found.content) == moment.replace(microsecond=0)


@pytest.mark.parametrize(("year", "tag"), [(1949, 0x18), (1950, 0x17), (2049, 0x17), (2050, 0x18)])
def test_times_have_two_digits_for_the_year_until_2049(year: int, tag: int) -> None:
    moment = datetime(year, 1, 1, tzinfo=UTC)
    assert time(moment)[0] == tag
    assert generalized_time(moment)[0] == 0x18
    abroad = moment.astimezone(timezone(timedelta(hours=5)))
    assert time(abroad) == time(moment)
    assert generalized_time(abroad) == generalized_time(moment)


@given(st.binary())
@example(b"-----BEGIN -----\n-----END -----")
@example(b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----")
@example(b"\xef\xbb\xbf")
def test_files_break_only_as_malformed(data: bytes) -> None:
    with contextlib.suppress(PkiError):
        assert blocks(data)


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_pem_is_read_with_any_line_ends_and_with_words_between(
    bodies: list[bytes], end: str
) -> None:
    lines = []
    for body in bodies:
        text = base64.encodebytes(body).decode().splitlines()
        lines += [
            "subject=somebody",
            "-----BEGIN CERTIFICATE-----",
            *text,
            "-----END CERTIFICATE-----",
        ]
    assert blocks(end.join(lines).encode()) == tuple(Block("CERTIFICATE", body) for body in bodies)


@given(st.binary(min_size=1))
def test_a_pem_block_is_read_back(der: bytes) -> None:
    assert blocks(pem("CERTIFICATE", der)) == (Block("CERTIFICATE", der),)


def test_a_pem_block_is_as_others_write_it() -> None:
    cert = mesh().leaf()
    assert pem("CERTIFICATE", cert.public_bytes(DER)) == cert.public_bytes(PEM)


def test_der_is_told_by_its_outline() -> None:
    certificate = mesh().leaf().public_bytes(DER)
    request = csr_builder().sign(key().private_key, key().algorithm.hash).public_bytes(DER)
    assert labels(certificate) == ["CERTIFICATE"]
    assert labels(request) == ["CERTIFICATE REQUEST"]
    assert labels(
        key().public_key.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ) == ["PUBLIC KEY"]
    archive = pkcs12.serialize_key_and_certificates(b"x", key().private_key, None, None, PLAIN)
    assert labels(archive) == ["PKCS12"]


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
@pytest.mark.parametrize("encoding", [DER, PEM])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_private_keys_are_named_and_not_decoded(
    form: serialization.PrivateFormat, encoding: serialization.Encoding, kind: str
) -> None:
    private_key = key().private_key if kind == "ec" else rsa_key()
    (block,) = blocks(private_key.private_bytes(encoding, form, PLAIN))
    assert block.label.endswith("PRIVATE KEY")
    assert block.der == b""


def test_encrypted_private_keys_are_named_too() -> None:
    locked = key().private_key.private_bytes(
        DER, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    assert labels(locked) == ["PRIVATE KEY"]


def test_no_repr_shows_content() -> None:
    assert "secret" not in repr(Block("CERTIFICATE", b"secret"))


def test_der_with_something_after_it_is_refused() -> None:
    with pytest.raises(Malformed, match="neither PEM nor DER"):
        blocks(mesh().leaf().public_bytes(DER) + b"\0")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "nothing in it"),
        (b" \n", "nothing in it"),
        (b"hello", "neither PEM nor DER"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "no end"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CSR-----\n", "no end"),
        (b"-----BEGIN CERTIFICATE-----\nA!AA\n-----END CERTIFICATE-----\n", "base64"),
    ],
)
def test_damage_is_named(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        blocks(data)


@pytest.mark.parametrize("dotted", ["2.5.29.15", "1.3.6.1.4.1.11129.2.4.2", "0.9", "2.999.1"])
def test_object_identifiers_are_written_with_dots(dotted: str) -> None:
    arcs = [int(arc) for arc in dotted.split(".")]
    content = b""
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.insert(0, arc & 0x7F | 0x80)
        content += bytes(octets)
    assert oid_text(content) == dotted
    assert oid_content(dotted) == content


@given(
    st.binary(max_size=40)
    | st.lists(
        st.builds(element, st.sampled_from([0x02, 0x04, 0x30]), st.binary(max_size=200))
    ).map(b"".join)
)
def test_canonical_elements_are_those_with_the_shortest_length(data: bytes) -> None:
    try:
        found = tuple(elements(data))
    except Malformed:
        found = None
    is_canonical = found is not None and all(
        element(part.tag, part.content) == part.whole for part in found
    )
    if is_canonical:
        assert canonical_elements(data) == found
    else:
        with pytest.raises(Malformed):
            canonical_elements(data)


@pytest.mark.parametrize(
    "odd",
    ["0481017f", "04820001ff", "0480", "04850000000001ff", "0481", "1f00", "04", "048200800000"],
)
def test_what_is_not_canonical_or_cut_short_is_refused(odd: str) -> None:
    with pytest.raises(Malformed):
        canonical_elements(bytes.fromhex(odd))


def test_no_element_reaches_over_the_end_of_what_it_is_in() -> None:
    data = bytes.fromhex("040300000004820100") + bytes(256)
    assert canonical_spans(data, 0, 5) == [(0x04, 0, 2, 5)]
    for end in (4, 6, 7, 8, 9, 100):
        with pytest.raises(Malformed):
            canonical_spans(data, 0, end)
