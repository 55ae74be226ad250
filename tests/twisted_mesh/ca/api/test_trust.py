"""``/api/v1/trust`` with ``wait``: at once what there is, soon what comes, and nothing too often."""

import gc
import json
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from pki.policy.principal import Principal, workload
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, NOW, key, mesh
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of, result_of
from tests.twisted_mesh.talking import Answer, Talk
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.published_trust import JwtPublished
from twisted_mesh.ca.record import CertificateRecord
from twisted_mesh.http.server import BoundedSite

WORKLOAD = workload(BACKEND, 1)


@define(eq=False)
class Api:
    """The CA's API, and whoever asks it."""

    rig: CaRig
    caller: Principal = WORKLOAD
    clock: Clock = field(factory=Clock)
    notifier: Notifier = field(init=False)
    site: BoundedSite = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.notifier = self.rig.notifier = Notifier(self.clock)
        self.rig.found()
        self.site = BoundedSite(CaApi(self.rig.ca, self, attestors_of(self.rig)), self.clock)

    def account(self, evidence: Evidence) -> Account:
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        return self.caller

    def ask(self, query: str) -> Talk:
        talk = Talk(self.site, self.clock)
        return self.ask_again(talk, query)

    def ask_again(self, talk: Talk, query: str) -> Talk:
        talk.say(f"GET /api/v1/trust?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        return talk

    def answer(self, query: str) -> Any:
        return only(self.ask(query)).json

    def revoke(self, number: int = 1) -> list[int]:
        serials = [self.rig.sign()[0].serial_number for _ in range(number)]
        for serial in serials:
            result_of(self.rig.ca.certificates.revoke(ADMIN, serial, Reason.UNSPECIFIED))
        return serials

    def at(self) -> str:
        """Where the feed stands now."""
        now = self.answer("")
        return f"after={now['generation']}&store={now['store']}"


@pytest.fixture
def api(rig: CaRig) -> Api:
    return Api(rig)


def only(talk: Talk) -> Answer:
    (answer,) = talk.answers
    assert answer.status == 200, answer.body
    return answer


def serials(document: Any) -> list[int]:
    return [int(revoked["serial"], 16) for revoked in document["revocations"]]


def test_what_was_revoked_before_is_told_at_once(api: Api) -> None:
    where = api.at()
    gone = api.revoke(2)
    told = api.answer(f"{where}&wait=25s")
    assert serials(told) == gone
    assert (told["more"], told["waited"]) == (False, 0)


def test_what_is_revoked_meanwhile_is_told_then(api: Api) -> None:
    talk = api.ask(f"{api.at()}&wait=25s")
    api.clock.advance(7)
    assert talk.answers == []
    gone = api.revoke()
    api.clock.advance(0)
    assert serials(only(talk).json) == gone
    assert only(talk).json["waited"] == 7


def test_the_wait_ends_with_nothing(api: Api) -> None:
    where = api.at()
    talk = api.ask(f"{where}&wait=25s")
    talk.pass_time(24.9)
    assert talk.answers == []
    talk.pass_time(0.1)
    told = only(talk).json
    assert serials(told) == []
    assert f"after={told['generation']}&store={told['store']}" == where
    assert told["waited"] == 25
    assert told["bundles"]


@pytest.mark.parametrize("where", ["after=0&store=another", "after=5"])
def test_who_comes_from_elsewhere_is_answered_at_once(api: Api, where: str) -> None:
    assert api.answer(f"{where}&wait=25s")["generation"] == 0


@pytest.mark.parametrize("wait", ["0s", "61s", "2m", "25", "", "-1s", "1.5s", "9" * 500 + "s"])
def test_a_wait_that_is_none_is_refused(api: Api, wait: str) -> None:
    (answer,) = api.ask(f"after=0&wait={wait}").answers
    assert answer.status == 400


def test_a_bundle_that_changes_is_told(api: Api) -> None:
    talk = api.ask(f"{api.at()}&wait=25s")
    ca = api.rig.ca
    ca.current.adopt(ca.authorities)
    api.clock.advance(1)
    assert talk.answers == []
    other = mesh(root_key=key(7)).root.certificate
    ca.current.adopt(ca.authorities.along(ca.authorities.root_line.prepared(other, NOW)))
    api.clock.advance(0)
    assert only(talk).json["bundles"] == {"mesh.local": ca.bundle().to_jwks_object()}


def test_the_log_wakes_nobody_and_is_told_at_the_end_of_the_wait(api: Api) -> None:
    api.rig.sign()
    size = result_of(api.rig.log.extend()).checkpoint.size
    where = f"{api.at()}&log={size}"
    behind = api.ask(f"{api.at()}&log={size - 1}&wait=25s")
    talk = api.ask(f"{where}&wait=25s")
    for _ in range(3):
        api.rig.sign()
        result_of(api.rig.log.extend())
        api.clock.advance(1)
    assert (talk.answers, behind.answers) == ([], [])
    talk.pass_time(22)
    for asked in (talk, behind):
        assert f"\n{size + 3}\n" in only(asked).json["log"]["checkpoint"]


def test_a_revocation_brings_the_log_along(api: Api) -> None:
    result_of(api.rig.log.extend())
    talk = api.ask(f"{api.at()}&log=0&wait=25s")
    api.revoke()
    result_of(api.rig.log.extend())
    api.clock.advance(0)
    assert only(talk).json["log"]["proof"] == []


def test_who_hangs_up_is_forgotten(api: Api) -> None:
    talk = api.ask(f"{api.at()}&wait=25s")
    assert len(api.notifier) == 1
    talk.wire.lose(ConnectionLost())
    assert len(api.notifier) == 0
    api.revoke()
    api.clock.advance(1)


def test_who_hangs_up_while_the_record_is_read_leaves_no_error_behind(
    api: Api, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    where = api.at()
    reading: Deferred[None] = Deferred()
    read = CertificateRecord.revocations

    async def slowly(record: CertificateRecord, after: int, store: str = "") -> Any:
        await reading
        return await read(record, after, store)

    monkeypatch.setattr(CertificateRecord, "revocations", slowly)
    errors: list[LogEvent] = []
    globalLogPublisher.addObserver(errors.append)
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(errors.append))
    talk = api.ask(f"{where}&wait=25s")
    talk.wire.lose(ConnectionLost())
    reading.callback(None)
    del talk
    gc.collect()  # the error of a Deferred that nobody asked is logged at its end
    assert [event for event in errors if "log_failure" in event] == []


def test_a_burst_reaches_everybody_in_few_answers_from_few_readings(api: Api) -> None:
    where = api.at()
    talks = [api.ask(f"{where}&wait=25s") for _ in range(100)]
    api.rig.order.clear()
    told: list[list[int]] = [[] for _ in talks]
    answers, gone = 0, []
    for tenth in range(20):
        for _ in range(10):
            gone += api.revoke() if tenth < 10 else []
            api.clock.advance(0.01)
        for number, talk in enumerate(talks):
            for answer in talk.answers:
                answers += 1
                told[number] += serials(answer.json)
                talk.wire.clear()
                now = answer.json
                query = f"after={now['generation']}&store={now['store']}&wait=25s"
                api.ask_again(talk, query)
    assert len(gone) == 100
    assert all(found == gone for found in told)
    assert answers <= 12 * 100, "a few to each, and not a hundred"
    assert api.rig.order.count("feed") <= 24, (
        "one for all who are told, and one for all who ask again"
    )


def test_when_too_many_wait_the_next_is_answered_at_once_and_leaves(api: Api) -> None:
    where = api.at()
    api.notifier.most = 1
    waiting = api.ask(f"{where}&wait=25s")
    crowded = api.ask(f"{where}&wait=25s")
    assert only(crowded).headers["connection"] == "close"
    assert not crowded.open
    assert waiting.answers == []


def test_waits_that_end_together_share_a_reading_and_are_told_how_old_it_is(api: Api) -> None:
    where = api.at()
    first = api.ask(f"{where}&wait=25s")
    api.clock.advance(0.5)
    second = api.ask(f"{where}&wait=25s")
    api.clock.advance(1)
    third = api.ask(f"{where}&wait=25s")
    api.rig.order.clear()
    for talk in (first, second, third):
        talk.pass_time(23.5 if talk is first else 0.5)
    third.pass_time(1)
    waited = [only(talk).json["waited"] for talk in (first, second, third)]
    assert waited == [25, 24.5, 25]
    assert api.rig.order.count("feed") == 2


def test_those_who_may_not_wait_are_answered_from_few_readings(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand readings at once are more than the store takes on."""
    where = api.at()
    api.notifier.most = 1
    readings: list[Deferred[None]] = []
    read = CertificateRecord.revocations

    async def slowly(record: CertificateRecord, after: int, store: str = "") -> Any:
        readings.append(Deferred())
        await readings[-1]
        return await read(record, after, store)

    monkeypatch.setattr(CertificateRecord, "revocations", slowly)
    talks = [api.ask(f"{where}{wait}") for wait in ("&wait=25s", "") for _ in range(500)]
    for reading in readings:  # it grows
        reading.callback(None)
    assert len(readings) <= 5
    assert sum(talk.statuses == [200] for talk in talks) == 999
    assert len(api.notifier) == 1, "though a thousand came before the first of them waited"


def test_the_proof_leads_to_the_checkpoint_that_comes_with_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.rig.sign()
    size = result_of(api.rig.log.extend()).checkpoint.size
    api.rig.sign()
    result_of(api.rig.log.extend())
    proving: list[Deferred[None]] = []
    prove = AuditLog.consistency

    async def slowly(log: AuditLog, since: int) -> Any:
        proof = await prove(log, since)
        proving.append(Deferred())
        await proving[-1]
        return proof

    monkeypatch.setattr(AuditLog, "consistency", slowly)
    talks = [api.ask(f"{api.at()}&log={size}") for _ in range(10)]
    api.rig.sign()
    result_of(api.rig.log.extend())
    for waited in proving:
        waited.callback(None)
    assert len(proving) == 1, "for all of them"
    for talk in talks:
        assert f"\n{size + 1}\n" in only(talk).json["log"]["checkpoint"]


def test_draining_does_not_wait_for_those_who_wait(api: Api) -> None:
    talk = api.ask(f"{api.at()}&wait=25s")
    api.notifier.close()
    assert serials(only(talk).json) == []
    assert serials(api.answer(f"{api.at()}&wait=25s")) == []


def test_a_caller_may_wait_on_the_same_connection_again(api: Api) -> None:
    talk = api.ask(f"{api.at()}&wait=1s")
    talk.pass_time(1)
    api.ask_again(talk, f"{api.at()}&wait=1s")
    talk.pass_time(1)
    assert talk.statuses == [200, 200]
    assert talk.open


def test_a_page_says_that_there_is_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_mesh.stores.reading.FEED_LIMIT", 2)
    gone = api.revoke(3)
    first = api.answer("after=0&wait=25s")
    assert (serials(first), first["more"]) == (gone[:2], True)
    rest = api.answer(f"after={first['generation']}&store={first['store']}&wait=25s")
    assert (serials(rest), rest["more"]) == (gone[2:], False)


def test_a_store_that_fails_fails_the_wait(api: Api) -> None:
    where = api.at()
    talk = api.ask(f"{where}&wait=25s")
    api.rig.store.broken = {"feed"}
    talk.pass_time(25)
    (answer,) = talk.answers
    assert answer.status == 503
    assert json.loads(answer.body)["code"] == "store-unavailable"


def acknowledged(api: Api) -> list[tuple[str, str, int, str]]:
    known = api.rig.ca.acknowledgements.known()
    return [(one.who, one.instance, one.holds, str(one.top)) for one in known]


TOP = f"sha256:{'ab' * 32}"


def test_who_asks_says_what_it_believes_and_serves(api: Api) -> None:
    talk = api.ask(f"{api.at()}&wait=25s&instance=i1&holds=7&top={TOP.replace(':', '%3A')}")
    assert talk.answers == []
    assert acknowledged(api) == [(WORKLOAD.proof, "i1", 7, TOP)], "before it is answered"
    api.answer("instance=i1&holds=8")
    assert acknowledged(api) == [(WORKLOAD.proof, "i1", 8, "None")]
    api.answer("")
    assert len(acknowledged(api)) == 1


@pytest.mark.parametrize(
    "query",
    [
        "instance=&holds=1",
        "instance=a-b&holds=1",
        "instance=%C3%A9&holds=1",
        f"instance={'a' * 65}&holds=1",
        "instance=a",
        "instance=a&holds=",
        "instance=a&holds=-1",
        "instance=a&holds=9999999999999999999",
        "instance=a&holds=1&top=",
        "instance=a&holds=1&top=sha256:ab",
        "instance=a&instance=b&holds=1",
    ],
)
def test_what_is_no_acknowledgement_is_refused(api: Api, query: str) -> None:
    (answer,) = api.ask(query).answers
    assert answer.status == 400
    assert acknowledged(api) == []


def test_what_has_changed_between_an_answer_and_the_next_question_is_told_at_once(api: Api) -> None:
    now = api.answer("")
    where = f"after={now['generation']}&store={now['store']}&edition={now['edition']}&wait=25s"
    assert api.ask(where).answers == [], "nothing has changed"
    current = api.rig.ca.current
    current.publish_jwt(JwtPublished(sequence=2))
    api.clock.advance(1)
    told = only(api.ask(where)).json
    assert told["edition"] != now["edition"]
    again = where.replace(now["edition"], told["edition"])
    assert api.ask(again).answers == []
    current.publish_jwt(JwtPublished(sequence=2))
    api.clock.advance(1)
    assert api.ask(again).answers == [], "it says the same"


def test_what_is_to_be_served_above_leaves_is_told(api: Api) -> None:
    issuing = api.rig.ca.authorities.issuing
    told = api.answer("")
    assert told["issuers"] == {issuing.key_id: [certificates_pem(issuing.intermediates).decode()]}
    assert (told["revoked_authorities"], told["withdrawn_pins"]) == ([], [])
