"""The stapler on a clock of the test's own: when it asks, what it staples, and what it says where it cannot."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pki.errors import PkiError, Problem
from pki.ocsp.request import OcspRequest
from pki.ocsp.sign import Responder, Standing
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import X509Svid
from tests.answers import respond, revoked
from tests.authorities import HOUR, NOW, Mesh, key, mesh
from tests.twisted_mesh.fake_ca import FakeCa, reach
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.tls.wires import TODAY, home
from tests.twisted_mesh.tls.wires import good_svid as svid_of_today
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.bootstrap import ca_security
from twisted_mesh.interfaces import Identity
from twisted_mesh.revocation.stapler import NOT_THERE, PATIENCE, Stapler
from twisted_mesh.tls.alerts import Unreachable
from twisted_mesh.tls.stapling import Staples

AWAY = Unreachable(Problem("unreachable", "nobody answers", "start it"))
NO_OCSP = CaRefused(404, [Problem("not-found", "there is no such route")])


@define(eq=False)
class Rig:
    """A stapler, and the CA that it asks."""

    ca: Mesh = field(factory=mesh)
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    standing: Standing | Revocation = Standing.GOOD
    lives: timedelta = HOUR
    error: PkiError | None = None
    is_slow: bool = False
    edit: Callable[[bytes], bytes] = bytes
    asked: list[float] = field(factory=list)
    staples: Staples = field(init=False)
    stapler: Stapler = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.staples = Staples(self.now)
        self.stapler = Stapler(
            self.ask, self.staples, self.clock, self.now, self.log, random.Random(7)
        )

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    async def ask(self, request: bytes) -> bytes:
        self.asked.append(self.clock.seconds())
        if self.is_slow:
            await Deferred()
        if self.error is not None:
            raise self.error
        parsed = OcspRequest.parse(request)
        assert parsed.nonce is None, "a nonce would keep the CA from answering out of its cache"
        responder = Responder(self.ca.issuing.certificate, self.ca.issuing.key)
        der = respond(parsed, responder, self.now(), standing=self.standing, lives=self.lives)
        return self.edit(der)

    def identity(self, name: str = "own") -> Identity:
        leaf = self.ca.leaf(now=self.now(), lifetime=4 * HOUR, leaf_key=key(name))
        svid = X509Svid.assemble((leaf, *self.ca.issuing.intermediates), key(name))
        return Identity(svid, self.ca.bundles, self.now())

    def prepare(self, identity: Identity | None = None) -> tuple[X509Svid, "Deferred[None]"]:
        identity = identity or self.identity()
        return identity.svid, Deferred.fromCoroutine(self.stapler.prepare(identity))

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_certificate_has_its_staple_before_it_is_used(rig: Rig) -> None:
    svid, prepared = rig.prepare()
    assert prepared.called
    assert rig.staples.of(svid.leaf)


def test_the_answer_is_fetched_anew_at_half_of_its_life(rig: Rig) -> None:
    svid, _ = rig.prepare()
    first = rig.staples.of(svid.leaf)
    rig.pass_time(1799)
    assert rig.asked == [0]
    rig.pass_time(2)
    assert rig.asked == [0, 1800]
    assert rig.staples.of(svid.leaf) not in (first, b"")


def test_answers_that_live_shortly_are_not_asked_for_all_the_time(rig: Rig) -> None:
    rig.lives = timedelta(seconds=1)
    rig.prepare()
    rig.pass_time(5, step=0.25)
    assert len(rig.asked) == 6


def test_each_rotation_asks_at_once_and_only_about_the_newest_from_then_on(rig: Rig) -> None:
    old, _ = rig.prepare()
    rig.pass_time(100)
    new, _ = rig.prepare(rig.identity("next"))
    assert rig.asked == [0, 100]
    assert rig.staples.of(old.leaf) and rig.staples.of(new.leaf)
    rig.pass_time(3600)
    assert rig.staples.of(old.leaf) == b""
    assert rig.staples.of(new.leaf)
    assert rig.asked == [0, 100, 1900, 3700]


def test_a_ca_that_is_slow_delays_no_certificate_for_long(rig: Rig) -> None:
    rig.is_slow = True
    svid, prepared = rig.prepare()
    assert not prepared.called
    rig.pass_time(PATIENCE)
    assert prepared.called
    assert rig.staples.of(svid.leaf) == b""
    assert rig.log.count("staple-failed") == 1
    rig.is_slow = False
    rig.pass_time(2)
    assert rig.staples.of(svid.leaf)
    assert rig.log.count("staple-fresh") == 1


@pytest.mark.parametrize(
    ("error", "edit", "code"),
    [
        (AWAY, bytes, "unreachable"),
        (None, lambda der: der[:-1], "malformed"),
        (None, lambda der: der[:-1] + bytes((der[-1] ^ 1,)), "ocsp-unsigned"),
    ],
    ids=["nobody answers", "cut short", "forged"],
)
def test_trouble_is_told_once_and_the_old_answer_stays_until_it_is_stale(
    error: PkiError | None, edit: Callable[[bytes], bytes], code: str, rig: Rig
) -> None:
    svid, _ = rig.prepare()
    rig.error, rig.edit = error, edit
    rig.pass_time(3599)
    assert rig.staples.of(svid.leaf)
    (told,) = [e for e in rig.log.events if e["log_level"].name == "warn"]
    assert (told["event"], told["codes"]) == ("staple-failed", code)
    tried = len(rig.asked)
    assert 30 < tried < 200, "it goes on trying, less and less often"
    rig.pass_time(2)
    assert rig.staples.of(svid.leaf) == b""
    rig.error, rig.edit = None, bytes
    rig.pass_time(61)
    assert rig.staples.of(svid.leaf)
    assert rig.log.count("staple-fresh") == 1


def test_who_waits_with_a_pause_asks_at_once_when_the_trouble_is_over(rig: Rig) -> None:
    rig.error = AWAY
    svid, _ = rig.prepare()
    rig.pass_time(100)
    tried = len(rig.asked)
    rig.error = None
    rig.stapler.retry_now()
    assert rig.staples.of(svid.leaf)
    rig.stapler.retry_now()
    assert len(rig.asked) == tried + 1, "who has an answer does not ask for another"


def test_a_ca_without_ocsp_is_left_in_peace_and_asked_again_later(rig: Rig) -> None:
    rig.error = NO_OCSP
    svid, prepared = rig.prepare()
    assert prepared.called
    rig.pass_time(NOT_THERE - 1)
    assert rig.asked == [0]
    assert not [e for e in rig.log.events if e["log_level"].name != "debug"]
    rig.error = None
    rig.pass_time(2)
    assert rig.staples.of(svid.leaf)


def test_that_our_own_certificate_is_revoked_is_told_to_clients_and_once_to_us(rig: Rig) -> None:
    identity = rig.identity()
    rig.standing = revoked(rig.ca, identity.svid.leaf, rig.now())
    rig.prepare(identity)
    rig.pass_time(3600)
    assert rig.staples.of(identity.svid.leaf)
    assert rig.log.count("own-certificate-revoked") == 1
    assert "keyCompromise" in rig.log.text("own-certificate-revoked")


def test_a_bug_of_ours_costs_the_staple_only(rig: Rig) -> None:
    rig.edit = lambda der: 1 / 0  # type: ignore[return-value,assignment]
    _, prepared = rig.prepare()
    assert prepared.called
    assert rig.log.count("staple-broke") == 1
    rig.edit = bytes
    rig.pass_time(2)
    assert rig.log.count("staple-fresh") == 1


def test_once_stopped_it_asks_no_more(rig: Rig) -> None:
    rig.prepare()
    rig.stapler.stop()
    rig.pass_time(7200)
    assert rig.asked == [0]
    assert not rig.clock.getDelayedCalls()
    rig.is_slow = True
    rig.prepare()
    rig.stapler.stop()
    rig.stapler.stop()


def test_the_question_goes_to_the_ca_as_rfc_6960_says(monkeypatch: pytest.MonkeyPatch) -> None:
    issuing = home().issuing
    ca = FakeCa(responder=Responder(issuing.certificate, issuing.key))
    reach(monkeypatch, ca)
    security = ca_security(ca.reactor, ca.of.bundle)
    client: Any = CaClient(ca.reactor, CaAddress.parse("https://localhost:8443"), security)
    staples, svid = Staples(lambda: TODAY), svid_of_today()
    stapler = Stapler(client.ocsp, staples, ca.reactor, lambda: TODAY, RecordingLog())
    ca.until_done(stapler.prepare(Identity(svid, ca.of.bundles, TODAY)))
    assert staples.of(svid.leaf)
    (asked,) = ca.asked
    assert asked.line == "POST /api/v1/ocsp"
    assert asked.headers["content-type"] == "application/ocsp-request"
    stapler.stop()


def test_a_ca_without_ocsp_is_recognised_over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    ca, log = FakeCa(), RecordingLog()
    reach(monkeypatch, ca)
    security = ca_security(ca.reactor, ca.of.bundle)
    client: Any = CaClient(ca.reactor, CaAddress.parse("https://localhost:8443"), security)
    stapler = Stapler(client.ocsp, Staples(lambda: TODAY), ca.reactor, lambda: TODAY, log)
    ca.until_done(stapler.prepare(Identity(svid_of_today(), ca.of.bundles, TODAY)))
    assert [e["log_level"].name for e in log.events] == ["debug"]
    stapler.stop()


def test_what_is_stapled_to_a_revoked_certificate_says_so_at_once(rig: Rig) -> None:
    identity = rig.identity()
    leaf = identity.svid.leaf
    rig.prepare(identity)
    good = rig.staples.of(leaf)
    rig.standing = revoked(rig.ca, leaf, rig.now())
    rig.stapler.revoked([revoked(rig.ca, rig.ca.leaf(), rig.now())])
    assert rig.staples.of(leaf) == good, "others are no concern of ours"
    rig.stapler.revoked([rig.standing])
    assert rig.staples.of(leaf) not in (good, b"")
    assert rig.log.count("own-certificate-revoked") == 1
    rig.stapler.revoked([rig.standing])
    assert len(rig.asked) == 2
    rig.pass_time(1801)
    assert len(rig.asked) == 3
