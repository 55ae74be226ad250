"""Whoever has most of what waits is known at each step."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from twisted_mesh.limits.holder_queue import HolderQueue

HOLDERS = st.sampled_from("abc")


@given(st.lists(st.tuples(HOLDERS, st.booleans()), max_size=60))
def test_the_largest_is_always_the_largest(steps: list[tuple[str, bool]]) -> None:
    queue: HolderQueue[int] = HolderQueue()
    inside: list[tuple[str, int]] = []
    for number, (holder, is_added) in enumerate(steps):
        ours = [member for of, member in inside if of == holder]
        if is_added or not ours:
            queue.add(holder, number)
            inside.append((holder, number))
        else:
            queue.remove(holder, ours[-1])
            inside.remove((holder, ours[-1]))
        sizes = Counter(of for of, _ in inside)
        assert queue.largest == max(sizes.values(), default=0)
        assert all(queue.size_of(of) == sizes[of] for of in "abc")
        if inside:
            first = queue.first_of_largest()
            (of,) = [of for of, member in inside if member == first]
            assert sizes[of] == queue.largest
            assert first == min(member for name, member in inside if name == of)
