"""What a peer may have kept, or done for nothing, is seen by the heads of its frames, in whatever pieces they come."""

from itertools import pairwise

import pytest
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import strategies as st

from twisted_mesh.grpc.frame_guard import BadFrame, FrameGuard

DATA, HEADERS, RESET, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
frames = st.tuples(
    st.integers(0, 40) | st.sampled_from([16384, 16385]),
    st.sampled_from([DATA, HEADERS, RESET, SETTINGS, PING, WINDOW, CONTINUATION, 99]),
)


def wire(*sent: tuple[int, int]) -> bytes:
    """Frames of these lengths and kinds."""
    return b"".join(
        length.to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 1)) + bytes(length)
        for length, kind in sent
    )


def verdict(data: bytes, cuts: list[int], **limits: int) -> ErrorCodes | None:
    guard = FrameGuard(24, **{"header_bytes": 60, "idle_frames": 8, **limits})
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    try:
        for start, end in pairwise(ends):
            guard.feed(data[start:end], 0.0)
    except BadFrame as error:
        return error.code
    return None


@given(st.lists(frames, max_size=12), st.lists(st.integers(0, 40_000), max_size=12))
def test_every_possible_split_has_the_same_verdict(
    sent: list[tuple[int, int]], cuts: list[int]
) -> None:
    data = bytes(24) + wire(*sent)
    assert verdict(data, cuts) == verdict(data, [])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([(16384, DATA)], None),
        ([(16385, DATA)], ErrorCodes.FRAME_SIZE_ERROR),
        ([(60, HEADERS)], None),
        ([(61, HEADERS)], ErrorCodes.ENHANCE_YOUR_CALM),
        ([(40, HEADERS), (21, CONTINUATION)], ErrorCodes.ENHANCE_YOUR_CALM),
        ([(40, HEADERS), (40, HEADERS)], None),
        ([(8, PING)] * 8, None),
        ([(8, PING)] * 9, ErrorCodes.ENHANCE_YOUR_CALM),
        ([(0, CONTINUATION)] * 9, ErrorCodes.ENHANCE_YOUR_CALM),
        ([(0, DATA)] * 9, ErrorCodes.ENHANCE_YOUR_CALM),
        ([(1, DATA)] * 100, None),
        ([(4, WINDOW), (4, RESET), (0, 99)] * 3, ErrorCodes.ENHANCE_YOUR_CALM),
    ],
    ids=[
        "longest", "too-long", "headers", "large-headers", "continued", "two-heads", "pings",
        "flood", "empty-continuations", "empty-data", "data", "mixed",
    ],
)  # fmt: skip
def test_bounds(sent: list[tuple[int, int]], code: ErrorCodes | None) -> None:
    assert verdict(bytes(24) + wire(*sent), []) == code


def test_another_second_and_frames_of_ours_make_room_again() -> None:
    guard = FrameGuard(0, 60, 8)
    guard.feed(wire(*[(8, PING)] * 8), 1.0)
    guard.feed(wire(*[(8, PING)] * 8), 2.0)
    guard.earn()
    guard.feed(wire(*[(8, PING)] * 4), 2.9)
    with pytest.raises(BadFrame):
        guard.feed(wire((8, PING)), 2.9)
