"""Messages are read whole in whatever pieces they come, and a large one is refused by its first five bytes."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_mesh.grpc.framing import MessageReader, format_timeout, frame, parse_timeout
from twisted_mesh.grpc.status import GrpcError, Status


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_messages_are_read_in_every_possible_split(
    messages: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reader = MessageReader(100)
    read: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        read += reader.feed(whole[start:end])
    assert read == messages
    assert reader.is_between


@given(st.binary(max_size=200), st.integers(1, 20))
def test_arbitrary_bytes_raise_nothing_but_our_error(data: bytes, size: int) -> None:
    reader = MessageReader(50)
    try:
        for start in range(0, len(data), size):
            list(reader.feed(data[start : start + size]))
    except GrpcError as error:
        assert error.status in {
            Status.INTERNAL,
            Status.INVALID_ARGUMENT,
            Status.RESOURCE_EXHAUSTED,
        }


def test_a_message_of_100_megabytes_is_refused_by_its_length() -> None:
    reader = MessageReader(4 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(GrpcError, match="100000000 bytes is too large") as refused:
            list(reader.feed(b"\0" + (100_000_000).to_bytes(4, "big") + b"x" * 1000))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert refused.value.status is Status.RESOURCE_EXHAUSTED


def test_one_of_the_largest_size_is_taken() -> None:
    assert list(MessageReader(10).feed(frame(b"0123456789"))) == [b"0123456789"]


def test_a_compressed_message_is_refused() -> None:
    with pytest.raises(GrpcError, match="compressed") as refused:
        list(MessageReader(10).feed(b"\1\0\0\0\1x"))
    assert refused.value.status is Status.INTERNAL


def test_timeouts_are_read_by_their_units() -> None:
    texts = ("1H", "2M", "3S", "4m", "5u", "6n", "99999999n", "0S")
    assert [parse_timeout(text) for text in texts] == pytest.approx(
        [3600, 120, 3, 0.004, 5e-6, 6e-9, 0.099999999, 0]
    )


@pytest.mark.parametrize(
    "text", ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1S ", "\u0661S"]
)
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(GrpcError) as refused:
        parse_timeout(text)
    assert refused.value.status is Status.INVALID_ARGUMENT


@given(st.floats(0, 90_000_000))
def test_a_timeout_is_written_so_that_it_is_read_and_never_longer(seconds: float) -> None:
    read = parse_timeout(format_timeout(seconds))
    assert read <= seconds * (1 + 1e-9)
    assert read == pytest.approx(seconds, rel=1e-4, abs=1e-9)
