"""The pages of several workers are one page, from which nothing of any is missing."""

import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from twisted_mesh.workers.figures import merged_listeners, merged_metrics, merged_readiness

PAGE = """# HELP a_total Of a.
# TYPE a_total counter
a_total{event="x"} %s
# HELP b_seconds Of b.
# TYPE b_seconds histogram
b_seconds_bucket{le="1.0"} 1.0
b_seconds_bucket{le="+Inf"} 2.0
b_seconds_count 2.0
b_seconds_sum 3.5
# HELP c Of c.
# TYPE c gauge
c 1.5
"""


def test_each_figure_says_whose_it_is() -> None:
    whole = merged_metrics({"parent": (PAGE % "1.0").encode(), "1": (PAGE % "2.0").encode()})
    families = {one.name: one for one in text_string_to_metric_families(whole.decode())}
    assert {one.type for one in families.values()} == {"counter", "histogram", "gauge"}
    found = {(one.labels["worker"], one.value) for one in families["a"].samples}
    assert found == {("parent", 1.0), ("1", 2.0)}
    assert all(one.labels["event"] == "x" for one in families["a"].samples)
    assert len(families["b_seconds"].samples) == 8
    assert whole.count(b"# TYPE") == 3


def page(**told: Any) -> bytes:
    usual = {"status": "ready", "seconds_to_expiry": 60, "revocation_age_seconds": 1.0}
    return json.dumps({**usual, **told}).encode()


def test_one_worker_that_serves_is_enough() -> None:
    down = page(status="no-identity", code="no-identity", seconds_to_expiry=0)
    found = merged_readiness([("1", 200, page()), ("2", 503, down)], 3)
    assert found == {
        "status": "ready",
        "seconds_to_expiry": 60,
        "revocation_age_seconds": 1.0,
        "workers": 3,
        "workers_ready": 1,
        "degraded": [{"name": "worker 2", "detail": "no-identity", "remedy": ""}],
    }


def test_the_least_fresh_counts_and_what_is_wrong_is_told_of_each() -> None:
    wrong = [{"name": "crl", "detail": "old", "remedy": "look"}]
    older = page(seconds_to_expiry=5, revocation_age_seconds=9.0, degraded=wrong)
    found = merged_readiness([("1", 200, page()), ("2", 200, older)], 2)
    assert (found["seconds_to_expiry"], found["revocation_age_seconds"]) == (5, 9.0)
    assert found["degraded"] == [{**wrong[0], "worker": "2"}]
    unknown = page(revocation_age_seconds=None)
    assert (
        merged_readiness([("1", 200, unknown), ("2", 200, older)], 2)["revocation_age_seconds"]
        is None
    )


def test_without_one_it_is_said_why() -> None:
    down = page(status="unreachable", code="unreachable", detail="the target")
    found = merged_readiness([("1", 503, down)], 2)
    assert (found["status"], found["detail"], found["workers_ready"]) == (
        "unreachable",
        "the target",
        0,
    )
    nobody = merged_readiness([], 2)
    assert (nobody["status"], nobody["code"]) == ("no-worker", "no-worker")


def listener(**told: Any) -> bytes:
    usual: dict[str, Any] = {
        "name": "in",
        "allow": ["spiffe://a/b"],
        "http": False,
        "target_problem": None,
        "room": 5,
        "open": 1,
        "ended": {"done": 1, "idle": 0},
        "peers": {},
        "connections": [{"address": "a"}],
    }
    return json.dumps({"listeners": [{**usual, **told}]}).encode()


def test_listeners_are_summed() -> None:
    peers = {"spiffe://a/b": {"connections": 2, "open": 1}}
    found = merged_listeners(
        [
            ("1", listener(peers=peers)),
            ("2", listener(ended={"done": 2, "idle": 1}, target_problem="down", peers=peers)),
            ("3", listener(connections=[], open=0)),
        ]
    )
    assert found == [
        {
            "name": "in",
            "allow": ["spiffe://a/b"],
            "http": False,
            "target_problem": "down",
            "room": 15,
            "open": 2,
            "ended": {"done": 4, "idle": 1},
            "peers": {"spiffe://a/b": {"connections": 4, "open": 2}},
            "connections": [{"address": "a", "worker": "1"}, {"address": "a", "worker": "2"}],
        }
    ]
    assert merged_listeners([]) == []


def test_no_more_connections_are_listed_than_of_one_process() -> None:
    many = [{"address": str(number)} for number in range(700)]
    (found,) = merged_listeners(
        [("1", listener(connections=many)), ("2", listener(connections=many))]
    )
    assert len(found["connections"]) == 1000
