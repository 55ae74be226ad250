"""Entries of CRLs: what is written is read back, as cryptography reads it too."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from pki.crl.entries import UnknownEntry, decode_entries, encode_entries, revocations
from pki.der import SEQUENCE, element
from pki.errors import Malformed, PkiError
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, NOW
from tests.pki.strategies import mutated

END = NOW + HOUR
moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0))
told = st.builds(
    Revocation,
    issuer=st.just("a"),
    serial=st.integers(-(2**170), 2**170),
    revoked_at=moments,
    reason=st.sampled_from(Reason),
    expires_at=st.just(END),
)


def revoked(serial: int, reason: Reason = Reason.KEY_COMPROMISE) -> Revocation:
    return Revocation("a", serial, NOW, reason, END)


def entry(*extensions: str) -> bytes:
    """One with serial 5, revoked at the start of 2026, and those extensions in hex."""
    listed = element(SEQUENCE, bytes.fromhex("".join(extensions))) if extensions else b""
    return element(SEQUENCE, b"\x02\x01\x05\x17\x0d260101000000Z" + listed)


@given(st.lists(told, max_size=20, unique_by=lambda r: r.serial))
def test_entries_are_read_back_by_serial(all_told: list[Revocation]) -> None:
    found = decode_entries(encode_entries(all_told))
    assert list(found) == sorted(found)
    read = list(revocations(found.items(), "a", END))
    assert read == sorted(all_told, key=lambda r: r.serial)


def test_the_order_in_which_they_are_told_changes_nothing() -> None:
    there = [revoked(serial) for serial in range(300)]
    assert encode_entries(there) == encode_entries(reversed(there))


def test_the_first_word_on_a_serial_stands() -> None:
    twice = [revoked(1, Reason.SUPERSEDED), revoked(1)]
    (found,) = revocations(decode_entries(encode_entries(twice)).items(), "a", END)
    assert found == twice[0]
    both = encode_entries(twice[:1]) + encode_entries(twice[1:])
    (found,) = revocations(decode_entries(both).items(), "a", END)
    assert found == twice[0]


def test_moments_are_cut_to_whole_seconds() -> None:
    late = Revocation("a", 1, NOW + timedelta(microseconds=999_999), Reason.UNSPECIFIED, END)
    (found,) = revocations(decode_entries(encode_entries([late])).items(), "a", END)
    assert found.revoked_at == NOW


def test_unspecified_is_left_out() -> None:
    with_reason = encode_entries([revoked(1)])
    without = encode_entries([revoked(1, Reason.UNSPECIFIED)])
    assert with_reason.count(bytes.fromhex("0603551d15")) == 1
    assert bytes.fromhex("0603551d15") not in without


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.UNSPECIFIED])
def test_each_reason_is_written_as_cryptography_writes_it(reason: Reason) -> None:
    oracle = (
        x509.RevokedCertificateBuilder()
        .serial_number(5)
        .revocation_date(datetime(2026, 1, 1, tzinfo=UTC))
        .add_extension(x509.CRLReason(reason.flag), critical=False)
        .build()
    )
    value = oracle.extensions[0].value.public_bytes()
    assert value in encode_entries([revoked(5, reason)])


INVALIDITY = "3018 0603551d18 0411 180f32303236303130313030303030305a"


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        ([], Reason.UNSPECIFIED),
        (["300a0603551d1504030a0101"], Reason.KEY_COMPROMISE),
        (["300d0603551d150101ff04030a0106"], Reason.CERTIFICATE_HOLD),
        (["300a0603551d1504030a0108"], Reason.REMOVE_FROM_CRL),
        ([INVALIDITY, "300a0603551d1504030a010a"], Reason.AA_COMPROMISE),
        (["300b06052a0304050604020500"], Reason.UNSPECIFIED),
    ],
)
def test_what_others_write_is_read(extensions: list[str], reason: Reason) -> None:
    (found,) = revocations(decode_entries(entry(*extensions)).items(), "a", END)
    assert found == Revocation("a", 5, datetime(2026, 1, 1, tzinfo=UTC), reason, END)


@pytest.mark.parametrize(
    ("extension", "said"),
    [
        ("300d0603551d1d0101ff04030a0106", r"critical extension 2\.5\.29\.29"),
        ("300e06052a030405060101ff04020500", r"critical extension 1\.2\.3\.4\.5\.6"),
    ],
)
def test_what_must_be_understood_and_is_not_is_refused(extension: str, said: str) -> None:
    with pytest.raises(UnknownEntry, match=said) as caught:
        decode_entries(entry(extension))
    assert caught.value.code == "unknown-extension"


@pytest.mark.parametrize(
    "bad",
    [
        entry()[:-1],
        entry() + b"\x30",
        entry("300a0603551d1504030a0107"),
        entry("300a0603551d1504030a010b"),
        element(SEQUENCE, b"\x02\x01\x05\x17\x0d261301000000Z"),
        element(SEQUENCE, b"\x02\x01\x05\x17\x02Z0"),
        element(SEQUENCE, b"\x02\x01\x05\x18\x0f99991231240000Z"),
        element(SEQUENCE, b""),
    ],
)
def test_damage_is_malformed(bad: bytes) -> None:
    with pytest.raises(Malformed):
        decode_entries(bad)


@given(st.one_of(st.binary(max_size=100), mutated(encode_entries(map(revoked, range(3))))))
@example(b"\x30\x84\xff\xff\xff\xff")
@example(b"\x30\x80")
def test_bytes_break_only_as_malformed(data: bytes) -> None:
    with contextlib.suppress(PkiError):
        list(revocations(decode_entries(data).items(), "a", END))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (entry()[:-1], "entry 3 of the CRL is damaged or cut short"),
        (b"\x30", "entry 3 of the CRL is damaged or cut short"),
        (entry("300a0603551d1504030a0107"), "entry 3 of the CRL cannot be relied on: there is no"),
        (entry("300d0603551d1d0101ff04030a0106"), "entry 3 of the CRL has the critical extension"),
    ],
)
def test_the_bad_entry_is_named(bad: bytes, said: str) -> None:
    others = encode_entries(Revocation("a", n, END, Reason.UNSPECIFIED, END) for n in (1, 2))
    with pytest.raises(Malformed, match=said):
        decode_entries(others + bad)
