"""Other people's CRLs: what is believed of them, what is refused, and when nobody is let in any more."""

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred, maybeDeferred

from pki.crl.issue import issue_crl
from pki.issuing.authority import Authority
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import X509Svid
from tests.authorities import (
    DAY,
    HOUR,
    NOW,
    OTHER,
    Mesh,
    forge_issuing,
    forge_root,
    key,
    mesh,
    overlap,
    pem,
    sign_crl,
)
from tests.twisted_mesh.http_places import HttpPlaces, reach, response
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.http.fetch import Fetcher
from twisted_mesh.interfaces import Identity
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.revocation.crl_source import CrlSource
from twisted_mesh.revocation.crl_watch import (
    A_TURN,
    AGAIN,
    FILE_PAUSE,
    PATIENCE,
    URL_PAUSE,
    CrlWatch,
)

PEM = serialization.Encoding.PEM
URL = "http://ca.example/crl"
CA = mesh()


@define(eq=False)
class Rig:
    """A watch over one file or URL."""

    home: Path
    places: HttpPlaces
    where: str = ""
    issuers: Sequence[x509.Certificate] = ()
    log: RecordingLog = field(factory=RecordingLog)
    numbers: SeenCrlNumbers = field(factory=lambda: SeenCrlNumbers(None))
    defer: Any = maybeDeferred
    revocations: RevocationSet = field(factory=RevocationSet)
    revoked: list[list[int]] = field(factory=list)
    watch: CrlWatch = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.where = self.where or str(self.home / "crl")
        self.watch = CrlWatch(
            [CrlSource.parse(self.where)],
            self.issuers,
            Fetcher(self.clock, 30.0),
            self.clock,
            self.now,
            self.log,
            self.revoke,
            lambda: self.revocations,
            self.numbers,
            self.defer,
            random.Random(7),
        )

    @property
    def clock(self) -> Any:
        return self.places.reactor

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    def revoke(self, news: Sequence[Revocation]) -> None:
        self.revoked.append([revocation.serial for revocation in news])
        self.revocations = self.revocations.merged(news, self.now())

    def publish(self, data: bytes) -> None:
        """At the place, from now on."""
        if self.where.startswith("http"):
            self.places.answer = lambda request: response(data)
        else:
            fresh = self.home / "fresh"
            fresh.write_bytes(data)
            fresh.rename(self.home / "crl")

    def prepare(self, ca: Mesh = CA) -> "Deferred[None]":
        leaf = ca.leaf(now=NOW, lifetime=4 * HOUR)
        svid = X509Svid.assemble((leaf, *ca.issuing.intermediates), key(9))
        identity = Identity(svid, ca.bundles, NOW)
        prepared = Deferred.fromCoroutine(self.watch.prepare(identity))
        self.pass_time(0.1, 0.01)
        return prepared

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(min(step, end - self.clock.seconds()))

    def is_revoked(self, serial: int, ca: Mesh = CA) -> bool:
        return self.revocations.find(ca.issuing.key_id, serial) is not None


@pytest.fixture(params=["a file", "a URL"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return made(tmp_path, monkeypatch, URL if request.param == "a URL" else "")


def made(home: Path, monkeypatch: pytest.MonkeyPatch, where: str = "", **options: Any) -> Rig:
    places = HttpPlaces()
    reach(monkeypatch, places)
    return Rig(home, places, where, **options)


def of_number(number: int | None, *serials: int, **overrides: Any) -> bytes:
    return sign_crl(CA.issuing, serials=serials, number=number, **overrides)


def test_what_is_listed_is_revoked_before_the_first_certificate_is_used(rig: Rig) -> None:
    rig.publish(of_number(1, 5, 7))
    assert rig.watch.doubt() is not None, "before it has been read"
    prepared = rig.prepare()
    assert prepared.called
    assert rig.is_revoked(5) and rig.is_revoked(7) and not rig.is_revoked(6)
    assert rig.watch.doubt() is None
    rig.watch.stop()


def test_a_new_list_is_taken_up_soon(rig: Rig) -> None:
    rig.publish(of_number(1, 5))
    rig.prepare()
    rig.publish(of_number(2, 5, 6))
    rig.pass_time(URL_PAUSE if rig.where == URL else FILE_PAUSE)
    rig.pass_time(1)
    assert rig.is_revoked(6)
    assert rig.revoked == [[5], [6]], "only what is new costs anything"
    assert rig.log.count("crl-believed") == 2
    rig.watch.stop()


def test_what_is_not_listed_any_more_stays_revoked(rig: Rig) -> None:
    rig.publish(of_number(1, 5))
    rig.prepare()
    rig.publish(of_number(2))
    rig.pass_time(URL_PAUSE + 1)
    assert rig.is_revoked(5)
    rig.watch.stop()


def test_the_list_of_a_root_and_of_several_issuers_in_one_file_are_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = made(tmp_path, monkeypatch)
    lists = of_number(1, 5), sign_crl(CA.root, serials=[9], number=4)
    rig.publish(b"".join(pem(der, "X509 CRL") for der in lists))
    rig.prepare()
    assert rig.is_revoked(5)
    assert rig.revocations.find(CA.root.key_id, 9) is not None
    rig.watch.stop()


def test_an_issuer_that_is_not_ours_is_known_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = mesh(OTHER)
    rig = made(tmp_path, monkeypatch, issuers=[other.issuing.certificate])
    rig.publish(sign_crl(other.issuing, serials=[5]))
    rig.prepare()
    assert rig.is_revoked(5, other)
    rig.watch.stop()


def another(name: str) -> Authority:
    """A CA with the names of ours and another key."""
    root = forge_root(name, end=NOW + DAY)
    return forge_issuing(
        root, f"{name} issuing", end=NOW + DAY, subject=CA.issuing.certificate.subject
    )


def large(count: int) -> bytes:
    """A CRL of so many entries."""
    listed = (
        Revocation(CA.issuing.key_id, serial, NOW, Reason.UNSPECIFIED, NOW + DAY)
        for serial in range(1, count + 1)
    )
    made = issue_crl(CA.issuing, listed, 1, this_update=NOW, next_update=NOW + HOUR)
    return asyncio.run(made)


def broken(der: bytes) -> bytes:
    """The same with another last bit, whatever it was."""
    return der[:-1] + bytes((der[-1] ^ 1,))


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a wrong signature": (lambda: broken(of_number(3, 6)), "crl-bad-signature"),
    "one signed by a CA of the same name": (
        lambda: sign_crl(another("posing"), serials=[6], number=3),
        "crl-bad-signature",
    ),
    "of another issuer": (lambda: sign_crl(mesh(OTHER).issuing, serials=[6]), "crl-other-issuer"),
    "older than the last one": (lambda: of_number(1, 6), "crl-rolled-back"),
    "without a number": (lambda: of_number(None, 6), "crl-rolled-back"),
    "stale": (
        lambda: of_number(3, 6, this_update=NOW - 2 * HOUR, next_update=NOW - HOUR),
        "crl-stale",
    ),
    "from the future": (
        lambda: of_number(3, 6, this_update=NOW + DAY, next_update=NOW + 2 * DAY),
        "crl-not-yet-valid",
    ),
    "truncated": (lambda: of_number(3, 6)[:-20], "malformed"),
    "truncated in front": (lambda: of_number(3, 6)[20:], "malformed"),
    "empty": (lambda: b"", "malformed"),
    "no CRL": (lambda: b"<html>Not found</html>", "malformed"),
    "a certificate": (lambda: CA.issuing.certificate.public_bytes(PEM), "malformed"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_list_is_refused_and_the_last_good_one_stays_in_force(what: str, rig: Rig) -> None:
    make, code = BAD[what]
    rig.publish(of_number(2, 5))
    rig.prepare()
    rig.publish(make())
    rig.pass_time(3 * URL_PAUSE)
    assert rig.is_revoked(5) and not rig.is_revoked(6)
    (told,) = [e for e in rig.log.events if e["log_level"].name == "warn"]
    assert (told["event"], told["codes"]) == ("crl-refused", code)
    assert "the last good one stays in force" in rig.log.text("crl-refused")
    assert rig.watch.doubt() is None
    # Once the last good one is stale, nobody knows any more.
    rig.pass_time(3600 - rig.clock.seconds() - 1, 10)
    assert rig.watch.doubt() is None
    rig.pass_time(URL_PAUSE)
    problem = rig.watch.doubt()
    assert problem is not None and problem.code == "stale-revocation"
    assert rig.where in problem.detail
    assert rig.log.count("crl-stale") == 1
    # And a good one ends it.
    rig.publish(of_number(4, 6, this_update=rig.now(), next_update=rig.now() + HOUR))
    rig.pass_time(2 * URL_PAUSE)
    assert rig.watch.doubt() is None
    assert rig.is_revoked(6)
    rig.watch.stop()


@pytest.mark.parametrize("what", BAD)
def test_a_bad_list_at_the_start_is_no_list(what: str, rig: Rig) -> None:
    make, code = BAD[what]
    if code == "crl-rolled-back":
        rig.numbers.remember(rig.where, {CA.issuing.key_id: 2})
    rig.publish(make())
    assert rig.prepare().called
    assert not rig.revoked
    problem = rig.watch.doubt()
    assert problem is not None and problem.code == "stale-revocation"
    assert code in problem.detail
    assert "there was none before" in rig.log.text("crl-refused")
    rig.watch.stop()


def test_nothing_there_is_no_list(rig: Rig) -> None:
    rig.prepare()
    assert rig.watch.doubt() is not None
    assert rig.log.count("crl-refused") == 1
    rig.publish(of_number(1, 5))
    rig.pass_time(10)
    assert rig.watch.doubt() is None
    rig.watch.stop()


def test_the_same_number_again_is_no_roll_back(rig: Rig) -> None:
    rig.publish(of_number(2, 5))
    rig.prepare()
    rig.publish(of_number(2, 5, next_update=NOW + 2 * HOUR))
    rig.pass_time(3 * URL_PAUSE)
    assert rig.log.count("crl-refused") == 0
    rig.watch.stop()


def test_numbers_are_remembered_beyond_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SeenCrlNumbers(tmp_path / "numbers")
    first = made(tmp_path, monkeypatch, numbers=memory)
    first.publish(of_number(7, 5))
    first.prepare()
    first.watch.stop()
    recalled = SeenCrlNumbers(tmp_path / "numbers")
    recalled.recall()
    second = made(tmp_path, monkeypatch, numbers=recalled)
    second.publish(of_number(6))
    second.prepare()
    assert [e["codes"] for e in second.log.events if e.get("event") == "crl-refused"] == [
        "crl-rolled-back"
    ]
    second.watch.stop()


def test_a_list_whose_issuer_becomes_ours_is_taken_up_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, other = made(tmp_path, monkeypatch), mesh(OTHER)
    rig.publish(sign_crl(other.issuing, serials=[5]))
    rig.prepare()
    assert not rig.is_revoked(5, other)
    rig.prepare(other)
    rig.pass_time(AGAIN + FILE_PAUSE)
    assert rig.is_revoked(5, other)
    # The CA from before may have living leaves.
    rig.publish(sign_crl(CA.issuing, serials=[6]))
    rig.pass_time(AGAIN)
    assert rig.is_revoked(6)
    rig.watch.stop()


def test_a_url_is_asked_more_often_when_its_list_is_about_to_be_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = made(tmp_path, monkeypatch, URL)
    rig.publish(of_number(1, 5, next_update=NOW + timedelta(seconds=40)))
    rig.prepare()
    rig.pass_time(19)
    assert len(rig.places.asked) == 1
    rig.pass_time(2)
    assert len(rig.places.asked) == 2
    rig.pass_time(60)
    assert rig.watch.doubt() is not None
    assert len(rig.places.asked) < 30
    rig.watch.stop()


def test_a_url_that_does_not_answer_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = made(tmp_path, monkeypatch, URL)
    rig.places.answer = lambda request: None
    prepared = rig.prepare()
    assert not prepared.called
    rig.pass_time(PATIENCE)
    assert prepared.called
    assert rig.log.count("crl-late") == 1
    assert rig.watch.doubt() is not None
    rig.publish(of_number(1, 5))
    rig.pass_time(40)
    assert rig.is_revoked(5)
    assert rig.watch.doubt() is None
    rig.watch.stop()


def test_a_url_that_goes_away_and_comes_back_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = made(tmp_path, monkeypatch, URL)
    rig.publish(of_number(1, 5))
    rig.prepare()
    rig.places.is_down = True
    rig.pass_time(600)
    assert rig.log.count("crl-refused") > 3
    assert len([e for e in rig.log.events if e["log_level"].name == "warn"]) == 1
    rig.places.is_down = False
    rig.pass_time(61)
    rig.places.is_down = True
    rig.pass_time(100)
    assert len([e for e in rig.log.events if e["log_level"].name == "warn"]) == 2
    rig.watch.stop()


def test_a_bug_of_ours_refuses_the_list_and_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]

    def defer(call: Any, *rest: Any, **more: Any) -> "Deferred[Any]":
        if broken and call.__name__ == "lists_from":
            broken.clear()
            raise ZeroDivisionError
        return maybeDeferred(call, *rest, **more)

    rig = made(tmp_path, monkeypatch, defer=defer)
    rig.publish(of_number(1, 5))
    rig.prepare()
    assert rig.log.count("crl-broke") == 1
    rig.pass_time(AGAIN + FILE_PAUSE)
    assert rig.is_revoked(5)
    rig.watch.stop()


def test_once_stopped_nothing_is_followed(rig: Rig) -> None:
    rig.publish(of_number(1, 5))
    rig.prepare()
    rig.watch.stop()
    rig.publish(of_number(2, 6))
    rig.pass_time(3 * URL_PAUSE)
    assert not rig.is_revoked(6)
    assert not rig.clock.getDelayedCalls()


@pytest.mark.slow
def test_a_list_of_two_hundred_thousand_is_read_elsewhere_and_believed_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def defer(call: Any, *rest: Any, **more: Any) -> "Deferred[Any]":
        outcome: list[Any] = []

        def work() -> None:
            threads.append(threading.current_thread().name)
            outcome.append(call(*rest, **more))

        thread = threading.Thread(target=work, name=f"for {call.__name__}")
        thread.start()
        thread.join()
        return maybeDeferred(lambda: outcome[0])

    rig = made(tmp_path, monkeypatch, defer=defer)
    rig.publish(large(200_000))
    rig.prepare()
    rig.pass_time(5, 0.01)
    assert len(rig.revocations) == 200_000
    assert {len(news) for news in rig.revoked} == {A_TURN}
    assert "for lists_from" in threads
    rig.watch.stop()


def test_a_url_that_was_never_there_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = made(tmp_path, monkeypatch, URL)
    rig.places.is_down = True
    rig.prepare()
    (told,) = [e for e in rig.log.events if e["log_level"].name == "warn"]
    assert (told["event"], told["codes"]) == ("crl-refused", "unreachable")
    assert told["meanwhile"] == "there was none before"
    rig.pass_time(600)
    assert len([e for e in rig.log.events if e["log_level"].name == "warn"]) == 1


def test_the_list_of_a_root_that_is_new_counts_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may list an issuing CA, or the root that it replaces; the one before lists nothing any more."""
    rig = made(tmp_path, monkeypatch)
    both = overlap()
    rig.publish(sign_crl(both.new, serials=[both.by_new.certificate.serial_number]))
    rig.prepare()
    assert not len(rig.revocations)
    rig.watch.learn((), both.bundle.roots)
    rig.pass_time(AGAIN + 1)
    assert rig.revocations.find(both.new.key_id, both.by_new.certificate.serial_number)
