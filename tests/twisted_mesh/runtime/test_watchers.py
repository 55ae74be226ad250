"""Who watches is told of each change, until it wants no more."""

from twisted_mesh.runtime.watchers import Watchers


def test_all_are_told_in_their_order_until_they_stop() -> None:
    told: list[str] = []
    watchers = Watchers()
    stop = watchers.add(lambda: told.append("first"))
    watchers.add(lambda: told.append("second"))
    watchers.tell()
    stop()
    stop()
    watchers.tell()
    assert told == ["first", "second", "second"]


def test_whoever_stops_while_it_is_told_leaves_nobody_out() -> None:
    told: list[str] = []
    watchers = Watchers()

    def once() -> None:
        told.append("first")
        stop()

    stop = watchers.add(once)
    watchers.add(lambda: told.append("second"))
    watchers.tell()
    watchers.tell()
    assert told == ["first", "second", "second"]
