"""What endpoints tell of their connections: added up, replaced, forgotten, and never more than fits."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twisted_mesh.ca.api.test_app import ADMIN, WORKLOAD, Api, problem
from tests.twisted_mesh.ca.rigs import CaRig
from twisted_mesh.ca import connection_reports
from twisted_mesh.ca.connection_reports import ConnectionReports, Told

A, B = "aa" * 32, "bb" * 32
CONNECTIONS = "/api/v1/connections"


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


def test_what_several_endpoints_tell_is_added_up(time: Time) -> None:
    told = ConnectionReports(time)
    told.tell("web", "1", {(A, 1): 2, (A, 2): 1})
    told.tell("web", "2", {(A, 1): 3})
    told.tell("api", "1", {(B, 1): 7})
    count = told.now()
    assert [count(A, 1), count(A, 2), count(B, 1), count(B, 2)] == [5, 1, 7, 0]
    assert told.all() == [Told("api", 1, 7), Told("web", 2, 3), Told("web", 1, 3)]


def test_the_next_report_takes_the_place_of_the_last_unless_it_goes_on(time: Time) -> None:
    told = ConnectionReports(time)
    told.tell("web", "1", {(A, 1): 2, (A, 2): 1})
    told.tell("web", "1", {(A, 2): 5, (A, 3): 1}, goes_on=True)
    assert [told.now()(A, n) for n in (1, 2, 3)] == [2, 5, 1]
    told.tell("web", "1", {(A, 3): 4})
    assert [told.now()(A, n) for n in (1, 2, 3)] == [0, 0, 4]
    told.tell("web", "1", {})
    assert told.all() == []


def test_a_report_counts_for_thirty_seconds(time: Time) -> None:
    told = ConnectionReports(time)
    told.tell("web", "1", {(A, 1): 2})
    time.seconds = 30.0
    assert told.now()(A, 1) == 2
    time.seconds = 30.1
    assert told.now()(A, 1) == 0
    assert told.all() == []


def test_the_more_endpoints_tell_the_slower_they_are_to_tell(time: Time) -> None:
    told = ConnectionReports(time)
    for number in range(1000):
        told.tell("web", str(number), {(A, number): 1})
    assert (told.pace("web"), told.lasts) == (100.0, 300.0)


def test_whoever_invents_instances_slows_nobody_else(time: Time) -> None:
    told = ConnectionReports(time)
    told.tell("honest", "1", {(A, 1): 1})
    for number in range(6000):
        told.tell("greedy", str(number), {(A, 2): 1})
    assert told.pace("honest") == 10.0
    assert told.pace("newcomer") == 10.0
    assert told.pace("greedy") == 200.0
    assert len(told.all()) == 1 + connection_reports.MOST_INSTANCES
    time.seconds = 20.0
    told.tell("honest", "1", {(A, 1): 3})
    time.seconds = 40.0
    assert told.now()(A, 1) == 3
    time.seconds = 10_000.0
    assert told.all() == []
    assert not (told._looked_for or told._ends or told._instances or told._rows or told._totals)


def test_the_ca_counts_its_own_connections(time: Time) -> None:
    registry: Any = SimpleNamespace(resting_on=lambda issuer, serial: (1,) * serial)
    told = ConnectionReports(time, registry)
    told.tell("web", "1", {(A, 2): 5})
    assert told.now()(A, 2) == 7


def test_memory_is_bounded_and_nobody_takes_all_of_it(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_reports, "MOST_EACH", 3)
    monkeypatch.setattr(connection_reports, "MOST", 16)
    told = ConnectionReports(time)
    for instance in ("1", "2", "3"):
        told.tell("greedy", instance, {(A, n): 1 for n in range(100)})
    assert [t.credentials for t in told.all()] == [3, 1], "three each, four in all"
    told.tell("web", "1", {(A, 1): 1})
    assert len(told.all()) == 3
    for who in "abcdefgh":
        told.tell(who, "1", {(A, n): 1 for n in range(100)})
    assert sum(t.credentials for t in told.all()) == 16
    time.seconds = 100.0
    told.tell("late", "1", {(A, 1): 1})
    assert told.all() == [Told("late", 1, 1)]


tellings = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from("12"),
    st.dictionaries(st.tuples(st.sampled_from([A, B]), st.integers(1, 4)), st.integers(1, 9)),
    st.booleans(),
    st.integers(0, 20),
)


@given(st.lists(tellings, max_size=30))
def test_the_totals_are_those_of_the_reports(told: list[Any]) -> None:
    time = Time()
    held = ConnectionReports(time)
    model: dict[tuple[str, str], tuple[float, dict[tuple[str, int], int]]] = {}
    for who, instance, counts, goes_on, pause in told:
        time.seconds += pause
        model = {key: known for key, known in model.items() if known[0] >= time.seconds}
        before = model.pop((who, instance), (0.0, {}))[1] if goes_on else {}
        model.pop((who, instance), None)
        if before or counts:
            model[who, instance] = (time.seconds + 30.0, {**before, **counts})
        held.tell(who, instance, counts, goes_on=goes_on)
    expected: Counter[tuple[str, int]] = Counter()
    for _, rows in model.values():
        expected.update(rows)
    count = held.now()
    for issuer in (A, B):
        for serial in range(1, 5):
            assert count(issuer, serial) == expected[issuer, serial]
    assert len(held.all()) == len(model)


# Over HTTP.


def test_an_endpoint_tells_and_an_administrator_reads(rig: CaRig) -> None:
    leaf, *_ = rig.sign()
    issuer = rig.home.issuing.key_id
    body = {"instance": "i1", "connections": {issuer: {f"{leaf.serial_number:x}": 3}}}
    answer = Api(rig, WORKLOAD).ask("POST", CONNECTIONS, body)
    assert (answer.status, answer.json) == (200, {"again_after": "10s"})
    api = Api(rig, ADMIN)
    (row,) = api.certificates()["certificates"]
    assert row["connections"] == 3
    assert api.ask("GET", f"/api/v1/certificates/{row['serial']}").json["connections"] == 3
    assert api.ask("GET", CONNECTIONS).json == {
        "endpoints": 1,
        "within": "30s",
        "own": 0,
        "reports": [{"who": WORKLOAD.proof, "credentials": 1, "connections": 3}],
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "does not fit"),
        ({"instance": "", "connections": {}}, "instance is a name"),
        ({"instance": "a" * 65, "connections": {}}, "instance is a name"),
        ({"instance": "a\n", "connections": {}}, "instance is a name"),
        ({"instance": "a", "connections": {"x": {"1": 1}}}, "64 digits"),
        ({"instance": "a", "connections": {A: {"x": 1}}}, "not a serial number"),
        ({"instance": "a", "connections": {A: {"1": 0}}}, "counted from 1"),
        ({"instance": "a", "connections": {A: {"1": 10**8}}}, "counted from 1"),
        ({"instance": "a", "connections": {A: {"1": 1.5}}}, "does not fit"),
        ({"instance": "a", "connections": {A: {f"{n:x}": 1 for n in range(1001)}}}, "at most 1000"),
    ],
)
def test_a_report_that_is_none_is_told_why(rig: CaRig, body: dict[str, Any], words: str) -> None:
    answer = Api(rig, WORKLOAD).ask("POST", CONNECTIONS, body)
    assert answer.status == 400
    assert words in problem(answer)["detail"]
    assert rig.ca.reports.all() == []
