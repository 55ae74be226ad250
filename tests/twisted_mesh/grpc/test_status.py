"""A text survives its way through a header, and what is no code or no encoding harms nobody."""

from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from twisted_mesh.grpc.status import GrpcError, Status, decode_message, encode_message


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    encoded = encode_message(text)
    assert decode_message(encoded) == text
    assert all(0x20 <= byte <= 0x7E for byte in encoded)


@given(st.binary(max_size=60))
def test_what_is_no_percent_encoding_is_read_all_the_same(value: bytes) -> None:
    assert isinstance(decode_message(value), str)


def test_percent_signs_without_digits_stay() -> None:
    assert decode_message(b"100% %zz %4 %41") == "100% %zz %4 A"


def test_a_long_text_is_cut_so_that_it_fits_into_any_header_list() -> None:
    assert len(encode_message("ü" * 10_000)) < 16 * 1024
    assert decode_message(encode_message("x" * 10_000)).endswith("x…")


def test_a_lone_surrogate_is_replaced() -> None:
    assert encode_message("a\ud800") == b"a?"


def test_codes_are_read() -> None:
    assert [Status.parse(text) for text in ("0", "7", "17", "-1", "", "٣", "1" * 5000)] == [
        Status.OK,
        Status.PERMISSION_DENIED,
        *[Status.UNKNOWN] * 5,
    ]


def test_an_error_says_status_and_text_and_has_a_code_of_ours() -> None:
    error = GrpcError(Status.UNAVAILABLE, "the CA is away\nforged line")
    assert str(error) == "UNAVAILABLE: the CA is away\\nforged line"
    assert [problem.code for problem in error.problems] == [Code.UNREACHABLE]
    assert GrpcError(Status.DATA_LOSS, "").problems[0].code == Code.REFUSED_BY_PEER
