"""What endpoints tell of their pins: replaced, forgotten, never more than fits, held against what will be served."""

import pytest

from pki.keys import spki_der
from pki.svid.spki_pin import MOST_RULES, PinSet, SpkiHash
from pki.validity import rfc3339
from tests.authorities import DAY, MESH, NOW, key, mesh
from tests.twisted_mesh.ca.api.test_app import ADMIN, WORKLOAD, Api, problem
from tests.twisted_mesh.ca.rigs import CaRig
from twisted_mesh.api.messages import held_pins
from twisted_mesh.ca import report_table
from twisted_mesh.ca.pin_reports import PinReports
from twisted_mesh.ca.report_table import LASTS

CONNECTIONS = "/api/v1/connections"
CA = mesh()
ROOT = SpkiHash.of(CA.root.certificate)
BACKUP = SpkiHash.of_spki(spki_der(key("backup").public_key))
NEXT = mesh(root_key=key("the next root"), issuing_key=key("the next issuing CA"))


def pins(name: str = "**", mode: str = "enforce", *hashes: SpkiHash) -> PinSet:
    rule = f"{MESH.id}/{name}={','.join(map(str, hashes or (ROOT, BACKUP)))}"
    return PinSet.parse([rule], mode, rfc3339(NOW + DAY), now=NOW)


class Time:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def told(time: Time) -> PinReports:
    return PinReports(time, lambda: NOW, MESH)


def by_whom(told: PinReports) -> list[tuple[str, PinSet]]:
    return [(one.who, one.pins) for one in told.all()]


def test_the_next_word_of_an_instance_takes_the_place_of_its_last(told: PinReports) -> None:
    told.tell("web", "1", pins())
    told.tell("web", "2", pins())
    told.tell("api", "1", pins("a"))
    told.tell("web", "1", pins(mode="report"))
    assert by_whom(told) == [("api", pins("a")), ("web", pins(mode="report")), ("web", pins())]
    told.tell("web", "2", PinSet())
    assert len(told.all()) == 2, "it has none any more"


def test_pins_count_for_a_while_after_they_were_told(told: PinReports, time: Time) -> None:
    told.tell("web", "1", pins())
    time.seconds = LASTS
    told.tell("api", "1", pins())
    assert len(told.all()) == 2
    time.seconds += 1
    assert [one.who for one in told.all()] == ["api"]
    time.seconds += LASTS
    assert told.all() == []
    assert (told._table._sizes, told._table._all) == ({}, 0)


def test_a_teller_has_a_share_and_crowds_out_nobody(
    told: PinReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, pins().lines))
    monkeypatch.setattr(report_table, "MOST", 8 * size)
    for number in range(5):
        told.tell("liar", str(number), pins())
    assert len(told.all()) == 2
    for number in range(10):
        told.tell(f"web {number}", "1", pins())
    assert len(told.all()) == 8, "and there is an end to all of it"


def test_it_says_whose_pins_would_break(told: PinReports) -> None:
    told.tell("web", "1", pins())
    told.tell("web", "2", pins())
    told.tell("api", "1", pins("**", "report"))
    told.tell("moved", "1", pins("**", "enforce", ROOT, SpkiHash.of(NEXT.root.certificate)))
    assert told.broken_by({SpkiHash.of(CA.issuing.certificate), ROOT}) == ()
    (broken,) = told.broken_by({SpkiHash.of(NEXT.root.certificate)})
    assert broken.who == "web"


# Over HTTP.


def body(held: PinSet, **other: object) -> dict[str, object]:
    told = held_pins(held)
    said = {"rules": told.rules, "mode": told.mode, "until": told.until, **other}
    return {"instance": "i1", "connections": {}, "pins": said}


def test_an_endpoint_tells_and_an_administrator_reads(rig: CaRig) -> None:
    asked = body(pins())
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, asked).status == 200
    answer = Api(rig, ADMIN).ask("GET", CONNECTIONS).json
    assert answer["pins"] == [{"who": WORKLOAD.proof, "pins": asked["pins"]}]
    goes_on = {"instance": "i1", "connections": {}, "goes_on": True}
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, goes_on).status == 200
    assert [one.pins for one in rig.ca.pin_reports.all()] == [pins()], "it said nothing of them"
    nothing = {"instance": "i1", "connections": {}}
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, nothing).status == 200
    assert "pins" not in Api(rig, ADMIN).ask("GET", CONNECTIONS).json


RULE = str(pins().rules[0])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"rules": ["x"]}, "is not a SPIFFE ID"),
        ({"rules": [RULE, RULE]}, "has two rules"),
        ({"rules": [RULE.rpartition(",")[0]]}, "has one pin"),
        ({"rules": [RULE] * (MOST_RULES + 1)}, "are the most"),
        ({"rules": 3}, "does not fit"),
        ({"mode": "loud"}, "does not fit"),
        ({"until": "tomorrow"}, "is not a time"),
        ({"until": 3}, "does not fit"),
    ],
)
def test_pins_that_are_none_are_told_why(rig: CaRig, said: dict[str, object], words: str) -> None:
    answer = Api(rig, WORKLOAD).ask("POST", CONNECTIONS, body(pins(), **said))
    assert answer.status == 400
    assert words in problem(answer)["detail"]
    assert rig.ca.pin_reports.all() == []


def test_a_clock_that_differs_from_ours_is_no_reason_to_refuse(rig: CaRig) -> None:
    late = body(pins(), until=rfc3339(NOW + 1000 * DAY))
    assert Api(rig, WORKLOAD).ask("POST", CONNECTIONS, late).status == 200
