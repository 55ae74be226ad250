"""What endpoints say of the receipts that they demand: replaced, bounded, kept for the next start, and held against."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from pki.errors import PkiError
from tests.twisted_mesh.ca.api.test_app import ADMIN, WORKLOAD, Api, problem
from tests.twisted_mesh.ca.rigs import CaRig
from twisted_mesh.api.messages import RequiredScts
from twisted_mesh.ca.report_table import LASTS
from twisted_mesh.ca.sct_reports import MOST_LOGS, MOST_REQUIRED, SctReports

CONNECTIONS = "/api/v1/connections"


def log_id(name: str) -> str:
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


A, B, C = sorted(map(log_id, "abc"))


class Time:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


def test_the_next_word_of_an_instance_takes_the_place_of_its_last(time: Time) -> None:
    told = SctReports(time)
    assert told.most_required == 0
    told.tell("web", "1", RequiredScts(1, [A, B]))
    told.tell("web", "2", RequiredScts(3, [A, B, C]))
    told.tell("web", "1", RequiredScts(2, [A, B]))
    assert [(one.required, one.logs) for one in told.all()] == [(2, {A, B}), (3, {A, B, C})]
    assert told.most_required == 3
    told.tell("web", "2", None)
    assert told.most_required == 2
    time.seconds = LASTS + 1
    assert told.all() == []


@pytest.mark.parametrize(
    ("logs", "quorum", "counted"),
    [
        ([A, B], 2, 2),
        ([A, B, C], 2, 1),  # one of the two may be of C, for which there is no key
        ([A, B, C], 3, 2),
        ([C], 1, 0),
        ([], 0, 0),
    ],
)
def test_only_receipts_of_logs_that_an_endpoint_knows_are_sure(
    time: Time, logs: list[str], quorum: int, counted: int
) -> None:
    told = SctReports(time)
    told.tell("web", "1", RequiredScts(2, [A, B]))
    (one,) = told.all()
    assert one.surely_counted(logs, quorum) == counted
    assert bool(told.refused_by(logs, quorum)) == (counted < 2)


def test_demands_outlive_the_process(time: Time, tmp_path: Path) -> None:
    path = tmp_path / "required-scts.json"
    told = SctReports(time, path)
    told.recall()
    for number in range(5):
        told.tell("web", str(number), RequiredScts(2, [A, B]))
    told.tell("api", "1", RequiredScts(1, [C]))
    again = SctReports(time, path)
    again.recall()
    assert {(one.who, one.required) for one in again.all()} == {("web", 2), ("api", 1)}
    assert again.refused_by([A, B, C], 1)
    time.seconds = LASTS + 1
    again.tell("api", "1", RequiredScts(1, [C]))
    assert [one.who for one in again.all()] == ["api"], "who says nothing any more has ended"
    third = SctReports(time, path)
    third.recall()
    assert [one.who for one in third.all()] == ["api"]


def test_the_same_demand_is_written_once(time: Time, tmp_path: Path) -> None:
    path = tmp_path / "required-scts.json"
    told = SctReports(time, path)
    told.tell("web", "1", RequiredScts(2, [A, B]))
    path.unlink()
    told.tell("web", "1", RequiredScts(2, [B, A]))
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"demands":[{"who":"web","required":0,"logs":[]}]}',
        b'{"demands":[{"who":"web","required":1,"logs":["x"]}]}',
        b'{"demands":[],"more":1}',
    ],
)
def test_a_damaged_file_is_a_start_that_cannot_be_judged(
    time: Time, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "required-scts.json"
    path.write_bytes(content)
    with pytest.raises(PkiError, match="remove it if you know that --ct-quorum is enough"):
        SctReports(time, path).recall()


# Over HTTP.


def body(required: object, logs: object) -> dict[str, object]:
    return {
        "instance": "i1",
        "connections": {},
        "require_sct": {"required": required, "logs": logs},
    }


def test_an_endpoint_tells_and_an_administrator_reads(rig: CaRig) -> None:
    asked = body(2, [A, B])
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, asked).status == 200
    answer = Api(rig, ADMIN).ask("GET", CONNECTIONS).json
    assert answer["require_sct"] == [{"who": WORKLOAD.proof, "require_sct": asked["require_sct"]}]
    goes_on = {"instance": "i1", "connections": {}, "goes_on": True}
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, goes_on).status == 200
    assert rig.ca.sct_reports.most_required == 2, "it said nothing of them"
    nothing = {"instance": "i1", "connections": {}}
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, nothing).status == 200
    assert "require_sct" not in Api(rig, ADMIN).ask("GET", CONNECTIONS).json


@pytest.mark.parametrize(
    ("required", "logs", "words"),
    [
        (0, [A], "from 1 to"),
        (MOST_REQUIRED + 1, [A], "from 1 to"),
        ("2", [A], "does not fit"),
        (1, ["x"], "ids of logs"),
        (1, [A[:-1]], "ids of logs"),
        (1, [A] * (MOST_LOGS + 1), "are the most"),
        (1, A, "does not fit"),
    ],
)
def test_demands_that_are_none_are_told_why(
    rig: CaRig, required: object, logs: object, words: str
) -> None:
    answer = Api(rig, WORKLOAD).ask("POST", CONNECTIONS, body(required, logs))
    assert answer.status == 400
    assert words in problem(answer)["detail"]
    assert rig.ca.sct_reports.all() == []


def test_the_feed_withdraws_logs_and_another_edition_says_so(rig: CaRig) -> None:
    before = Api(rig, ADMIN).ask("GET", "/api/v1/trust").json
    assert "withdrawn_logs" not in before
    rig.ca.current.withdrawn_logs = frozenset((A,))
    rig.ca.current.adopt(rig.ca.authorities)
    after = Api(rig, ADMIN).ask("GET", "/api/v1/trust").json
    assert after["withdrawn_logs"] == [A]
    assert after["edition"] != before["edition"]
    assert json.dumps(after["bundles"]) == json.dumps(before["bundles"])
