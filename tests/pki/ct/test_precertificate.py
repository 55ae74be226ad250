"""Poison and receipts go in and out of a TBSCertificate, all else stays as it is, and odd DER is refused."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.precertificate import (
    LONGEST,
    POISON_OID,
    SCT_LIST_OID,
    embedded_list,
    is_poisoned,
    tbs_of,
    with_poison,
    with_scts,
    without_poison,
    without_scts,
)
from pki.ct.sct import list_bytes
from pki.der import element, elements, oid_content
from pki.errors import Malformed
from tests.authorities import MESH, NOW, key, mesh, tlv
from tests.pki.ct.logs import ONE, entry_of, logged
from tests.pki.strategies import mutated

LEAF = mesh().leaf()
DRAFT = LEAF.tbs_certificate_bytes
LIST = list_bytes([ONE.sct(entry_of(LEAF))])
PRE, FINAL = with_poison(DRAFT), with_scts(DRAFT, LIST)
_POISON = tlv(0x30, tlv(0x06, oid_content(POISON_OID)) + b"\x01\x01\xff\x04\x02\x05\x00")
_HEAD = tlv(0x06, oid_content(SCT_LIST_OID))


def test_a_draft_its_precertificate_and_the_final_one_are_told_apart_and_lead_to_each_other() -> (
    None
):
    assert without_poison(PRE) == without_scts(FINAL) == DRAFT == without_scts(DRAFT)
    assert is_poisoned(PRE) and not is_poisoned(DRAFT) and not is_poisoned(FINAL)
    assert embedded_list(FINAL) == LIST
    assert embedded_list(DRAFT) is None is embedded_list(PRE)


def test_cryptography_reads_them_as_we_mean_them() -> None:
    pre = x509.load_der_x509_certificate(signed(PRE))
    poison = pre.extensions.get_extension_for_class(x509.PrecertPoison)
    assert poison.critical and pre.extensions[-1].oid == poison.oid
    final = x509.load_der_x509_certificate(signed(FINAL))
    (sct,) = final.extensions.get_extension_for_class(
        x509.PrecertificateSignedCertificateTimestamps
    ).value
    assert sct.log_id == ONE.log.log_id and not final.extensions[-1].critical
    # Cryptography makes the very same precertificate by its own builder.
    builder = x509.CertificateBuilder(
        LEAF.issuer,
        LEAF.subject,
        LEAF.public_key(),
        LEAF.serial_number,
        LEAF.not_valid_before_utc,
        LEAF.not_valid_after_utc,
        list(LEAF.extensions),
    ).add_extension(x509.PrecertPoison(), critical=True)
    issuing = mesh().issuing.key
    made = builder.sign(issuing.private_key, issuing.algorithm.hash)  # type: ignore[attr-defined]
    assert made.tbs_certificate_bytes == PRE


def signed(tbs: bytes) -> bytes:
    return tlv(
        0x30, tbs + tlv(0x30, tlv(0x06, bytes.fromhex("2a8648ce3d040302"))) + b"\x03\x02\0\0"
    )


def parts(tbs: bytes) -> tuple[list[bytes], list[bytes]]:
    """Fields before the extensions, and the extensions."""
    (outer,) = elements(tbs)
    *fields, wrapped = elements(outer.content)
    (listed,) = elements(wrapped.content)
    return [part.whole for part in fields], [part.whole for part in elements(listed.content)]


def built(extensions: list[bytes], fields: list[bytes] | None = None) -> bytes:
    """A TBSCertificate with these extensions."""
    found = parts(DRAFT)[0] if fields is None else fields
    return tlv(0x30, b"".join(found) + tlv(0xA3, tlv(0x30, b"".join(extensions))))


@given(st.integers(0, 20))
def test_they_are_taken_out_from_wherever_they_are(place: int) -> None:
    """RFC 6962 says not where: others put them in the middle, and the rest keeps its order."""
    extensions = parts(DRAFT)[1]
    at = place % (len(extensions) + 1)
    for whole, without in (
        (parts(PRE)[1][-1], without_poison),
        (parts(FINAL)[1][-1], without_scts),
    ):
        assert without(built([*extensions[:at], whole, *extensions[at:]])) == DRAFT


@pytest.mark.parametrize(
    "refused",
    [
        lambda: with_poison(PRE),
        lambda: with_poison(FINAL),
        lambda: with_scts(PRE, LIST),
        lambda: with_scts(FINAL, LIST),
        lambda: without_scts(PRE),
        lambda: without_poison(built([*parts(FINAL)[1], _POISON])),
    ],
    ids=range(6),
)
def test_none_gets_poison_or_receipts_twice_or_both(refused: object) -> None:
    with pytest.raises(Malformed, match="poison extension or receipts"):
        refused()  # type: ignore[operator]


def test_what_has_no_poison_is_no_precertificate() -> None:
    with pytest.raises(Malformed, match="no poison extension"):
        without_poison(DRAFT)


def _long_form(content: bytes, tag: int = 0x30) -> bytes:
    """With a length that is written longer than it must be."""
    size = len(content).to_bytes(4, "big")
    return bytes((tag, 0x84)) + size + content


_EXTENSIONS = parts(DRAFT)[1]
_FIELDS = parts(DRAFT)[0]


ODD = {
    "a long length outside": (_long_form(DRAFT[4:]), "longer than it must"),
    "a long length of the extensions": (
        tlv(0x30, b"".join(_FIELDS) + _long_form(tlv(0x30, b"".join(_EXTENSIONS)), 0xA3)),
        "longer than it must",
    ),
    "a long length of one extension": (
        built([_long_form(tlv(0x06, b"\x2a\x03") + b"\x04\x00"), *_EXTENSIONS]),
        "longer than it must",
    ),
    "a long length of an OID": (
        built([tlv(0x30, _long_form(b"\x2a\x03", 0x06) + b"\x04\x00"), *_EXTENSIONS]),
        "longer than it must",
    ),
    "critical written out as FALSE": (
        built([tlv(0x30, _HEAD + b"\x01\x01\x00" + b"\x04\x00"), *_EXTENSIONS]),
        "not written as DER",
    ),
    "critical as another TRUE": (
        built([tlv(0x30, _HEAD + b"\x01\x01\x01" + b"\x04\x00"), *_EXTENSIONS]),
        "not written as DER",
    ),
    "an extension without a value": (
        built([tlv(0x30, _HEAD), *_EXTENSIONS]),
        "not written as DER",
    ),
    "an extension that is a SET": (
        built([tlv(0x31, _HEAD + b"\x04\x00"), *_EXTENSIONS]),
        "not written as DER",
    ),
    "an extension twice": (built([*_EXTENSIONS, _EXTENSIONS[0]]), "one of them twice"),
    "no extensions": (built([]), "no extensions"),
    "receipts alone": (built([parts(FINAL)[1][-1]]), "no extension but that one"),
    "critical receipts": (
        built([*_EXTENSIONS, tlv(0x30, _HEAD + b"\x01\x01\xff" + b"\x04\x02\x04\x00")]),
        "is not critical",
    ),
    "something after it": (DRAFT + b"\x05\x00", "one SEQUENCE"),
    "something after the extensions": (
        tlv(0x30, next(elements(DRAFT)).content + b"\x05\x00"),
        "no TBSCertificate of version 3",
    ),
    "version 1": (tlv(0x30, b"".join(_FIELDS[1:])), "no TBSCertificate of version 3"),
    "nothing inside": (b"\x30\x00", "no TBSCertificate"),
    "nothing": (b"", "one SEQUENCE"),
    "too long": (tlv(0x30, bytes(LONGEST)), "not looked at"),
    "cut short": (DRAFT[:-1], "cut short"),
}


@pytest.mark.parametrize(("odd", "told"), ODD.values(), ids=ODD)
def test_what_is_not_written_as_der_has_it_is_refused(odd: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        without_scts(odd)


_POISON_OID = tlv(0x06, oid_content(POISON_OID))


@pytest.mark.parametrize(
    "rest",
    [b"\x04\x02\x05\x00", b"\x01\x01\xff\x04\x00", b"\x01\x01\xff\x04\x03\x05\x81\x00"],
    ids=["not critical", "empty", "a long NULL"],
)
def test_poison_is_critical_and_null_and_nothing_else(rest: bytes) -> None:
    with pytest.raises(Malformed, match="critical, and NULL"):
        without_poison(built([*_EXTENSIONS, tlv(0x30, _POISON_OID + rest)]))


@given(mutated(PRE) | mutated(FINAL) | st.binary(max_size=80))
def test_damage_raises_nothing_but_malformed_and_comes_out_as_it_went_in(data: bytes) -> None:
    try:
        if is_poisoned(data):
            bare = without_poison(data)
            assert with_poison(bare).count(_POISON) == data.count(_POISON)
            return
        found = embedded_list(data)
        bare = without_scts(data)
    except Malformed:
        return
    assert bare == data if found is None else len(bare) < len(data)


def test_a_certificate_is_taken_apart_as_it_came() -> None:
    der = LEAF.public_bytes(Encoding.DER)
    assert tbs_of(der) == DRAFT
    for odd in (der + b"\0", _long_form(der[4:]), element(0x30, DRAFT), b""):
        with pytest.raises(Malformed):
            tbs_of(odd)


@given(st.binary(max_size=60) | mutated(LEAF.public_bytes(Encoding.DER)))
def test_a_damaged_certificate_raises_nothing_but_malformed(data: bytes) -> None:
    try:
        assert tbs_of(data) in data
    except Malformed:
        return


def test_the_whole_way_of_a_certificate_of_each_kind() -> None:
    for leaf_key in (key(9), key("another")):
        leaf = mesh().leaf(MESH.member("service", "web"), NOW, timedelta(hours=2), leaf_key)
        final = logged(leaf, ONE.sct(entry_of(leaf)))
        assert without_scts(final.tbs_certificate_bytes) == leaf.tbs_certificate_bytes
