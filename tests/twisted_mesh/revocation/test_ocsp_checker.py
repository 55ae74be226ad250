"""Asking a responder about peers: whom, how often, and what becomes of each answer and of none."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred

from pki.errors import Malformed, Problem
from pki.ocsp.request import OcspRequest
from pki.ocsp.sign import Responder, Standing
from pki.svid.revocation_set import Revocation
from tests.answers import BAD, answer, delegate, respond, revoked
from tests.authorities import HOUR, NOW, forge, key, mesh
from tests.twisted_mesh.http_places import HttpPlaces, Request, reach, response
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.http.fetch import Fetcher
from twisted_mesh.revocation.ocsp_checker import PATIENCE, OcspChecker, Responders

URL = "http://ocsp.example/ask"
CA = mesh(now=NOW - HOUR)
ISSUER = CA.issuing.certificate


@define(eq=False)
class Rig:
    """A checker, and the responder that it asks."""

    places: HttpPlaces
    responders: Responders | None = field(factory=lambda: Responders.parse(URL, []))
    fails_closed: bool = True
    log: RecordingLog = field(factory=RecordingLog)
    revoked: list[Revocation] = field(factory=list)
    responder: Responder = field(factory=lambda: Responder(ISSUER, CA.issuing.key))
    lives: timedelta = HOUR
    checker: OcspChecker = field(init=False)

    def __attrs_post_init__(self) -> None:
        assert self.responders is not None
        self.places.answer = self.good
        self.checker = OcspChecker(
            self.responders,
            Fetcher(self.clock, 5.0),
            self.clock,
            self.now,
            self.log,
            self.revoked.extend,
            self.fails_closed,
        )

    @property
    def clock(self) -> Any:
        return self.places.reactor

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    def good(self, request: Request) -> bytes:
        asked = OcspRequest.parse(request.body)
        assert asked.nonce is not None and len(asked.nonce) == 32
        der = respond(asked, self.responder, self.now(), lives=self.lives, nonce=asked.nonce)
        return response(der)

    def saying(self, make: Callable[[x509.Certificate], bytes], leaf: x509.Certificate) -> None:
        """Answer so, with or without a nonce."""
        self.places.answer = lambda request: response(make(leaf))

    def ask(
        self, leaf: x509.Certificate, seconds: float = 9.0
    ) -> "list[Sequence[Problem] | Exception]":
        """What there is to object, once that is known."""
        outcome: list[Any] = []
        path = (leaf, ISSUER, CA.root.certificate)
        Deferred.fromCoroutine(self.checker.objections(path, seconds)).addBoth(outcome.append)
        for _ in range(20):
            self.clock.advance(0)
        return outcome

    def codes(self, leaf: x509.Certificate) -> list[str]:
        (problems,) = self.ask(leaf)
        assert not isinstance(problems, Exception)
        return [problem.code for problem in problems]


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> HttpPlaces:
    found = HttpPlaces()
    reach(monkeypatch, found)
    return found


@pytest.fixture
def rig(places: HttpPlaces) -> Rig:
    return Rig(places)


def test_a_good_certificate_is_let_in_and_not_asked_about_until_the_answer_is_stale(
    rig: Rig,
) -> None:
    leaf = CA.leaf()
    assert [rig.codes(leaf) for _ in range(3)] == [[], [], []]
    (asked,) = rig.places.asked
    assert asked.line == "POST /ask"
    assert asked.headers["content-type"] == "application/ocsp-request"
    rig.clock.advance(3600)
    assert rig.codes(leaf) == []
    assert len(rig.places.asked) == 1
    rig.clock.advance(1)
    rig.places.is_down = True
    assert rig.codes(leaf) == ["ocsp-unreachable"]


def test_a_delegate_of_the_issuer_may_answer(rig: Rig) -> None:
    rig.responder = delegate(CA, NOW)
    assert rig.codes(CA.leaf()) == []


def test_a_revoked_one_is_refused_and_believed_to_be_revoked_by_all_here(rig: Rig) -> None:
    leaf = CA.leaf()

    def say(request: Request) -> bytes:
        asked = OcspRequest.parse(request.body)
        standing = revoked(CA, leaf, rig.now())
        return response(
            respond(asked, rig.responder, rig.now(), standing=standing, nonce=asked.nonce)
        )

    rig.places.answer = say
    assert rig.codes(leaf) == ["revoked"]
    assert [found.serial for found in rig.revoked] == [leaf.serial_number]


@pytest.mark.parametrize("what", sorted(set(BAD) - {"revoked", "unknown"}))
@pytest.mark.parametrize("fails_closed", [True, False])
def test_what_cannot_be_believed_is_no_answer(
    what: str, fails_closed: bool, places: HttpPlaces
) -> None:
    rig, leaf = Rig(places, fails_closed=fails_closed), CA.leaf()
    make, code = BAD[what]
    rig.saying(lambda cert: make(CA, cert, NOW), leaf)
    found = rig.codes(leaf)
    if fails_closed:
        assert code in found
    else:
        assert found == []
        assert rig.log.count("ocsp-unanswered") == 1
    assert not rig.revoked
    # And is asked again the next time.
    rig.codes(leaf)
    assert len(rig.places.asked) == 2


@pytest.mark.parametrize("fails_closed", [True, False])
def test_a_replayed_answer_is_no_answer(fails_closed: bool, places: HttpPlaces) -> None:
    rig, leaf = Rig(places, fails_closed=fails_closed), CA.leaf()
    rig.saying(lambda cert: answer(CA, cert, NOW), leaf)
    assert rig.codes(leaf) == (["ocsp-nonce"] if fails_closed else [])


@pytest.mark.parametrize("fails_closed", [True, False])
def test_one_that_the_responder_does_not_know_is_refused_in_any_case(
    fails_closed: bool, places: HttpPlaces
) -> None:
    rig, leaf = Rig(places, fails_closed=fails_closed), CA.leaf()

    def say(request: Request) -> bytes:
        asked = OcspRequest.parse(request.body)
        der = respond(asked, rig.responder, NOW, standing=Standing.UNKNOWN, nonce=asked.nonce)
        return response(der)

    rig.places.answer = say
    assert rig.codes(leaf) == ["ocsp-unknown"]


@pytest.mark.parametrize(
    "trouble",
    [
        response(status=404),
        response(status=302, headers={"Location": "http://elsewhere/"}),
        response(b"no answer"),
        response(b"a" * 70_000),
        b"",
    ],
    ids=["404", "a redirection", "garbage", "too long", "hung up"],
)
def test_no_answer_refuses_or_is_told(trouble: bytes, places: HttpPlaces) -> None:
    rig = Rig(places)
    rig.places.answer = lambda request: trouble
    (code,) = rig.codes(CA.leaf())
    assert code in ("ocsp-unreachable", "malformed")
    lenient = Rig(places, fails_closed=False)
    lenient.places.answer = lambda request: trouble
    for number in range(30):
        assert lenient.codes(CA.leaf(leaf_key=key(f"peer {number % 3}"))) == []
    told = [e for e in lenient.log.events if e["log_level"].name == "warn"]
    assert len(told) == 10, "a flood of them does not fill the log"
    assert lenient.log.count("ocsp-unanswered") == 30


@pytest.mark.parametrize(("left", "waited"), [(9.0, PATIENCE), (2.0, 2.0)])
def test_a_responder_that_is_slow_is_waited_for_as_long_as_the_handshake_allows(
    left: float, waited: float, rig: Rig
) -> None:
    rig.places.answer = lambda request: None
    outcome = rig.ask(CA.leaf(), left)
    rig.clock.advance(waited - 0.1)
    assert not outcome
    rig.clock.advance(0.2)
    ((problem,),) = outcome  # type: ignore[misc]
    assert problem.code == "ocsp-unreachable"


def test_many_connections_of_one_peer_ask_once(rig: Rig) -> None:
    leaf, held = CA.leaf(), []
    rig.places.answer = held.append  # type: ignore[assignment]
    outcomes = [rig.ask(leaf) for _ in range(50)]
    assert len(rig.places.asked) == 1
    impatient = rig.ask(leaf, 0.5)
    rig.clock.advance(1)
    assert len(impatient) == 1
    rig.places.is_down = True
    rig.clock.advance(5)
    assert all(len(outcome) == 1 for outcome in outcomes)
    assert not rig.checker._asking


def test_what_is_known_of_certificates_is_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted_mesh.revocation import ocsp_checker

    monkeypatch.setattr(ocsp_checker, "_CACHED", 2)
    leaves = [CA.leaf(leaf_key=key(f"peer {n}")) for n in range(3)]
    for leaf in leaves:
        rig.codes(leaf)
    assert len(rig.checker._good) == 2
    rig.codes(leaves[2])
    assert len(rig.places.asked) == 3
    rig.codes(leaves[0])
    assert len(rig.places.asked) == 4


def test_a_bug_of_ours_is_no_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Responders, "of", lambda *_: 1 / 0)
    assert rig.codes(CA.leaf()) == ["ocsp-unreachable"]


def naming(*urls: str) -> x509.Certificate:
    """A leaf that says who answers for it."""
    access = [
        x509.AccessDescription(
            x509.oid.AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
        )
        for url in urls
    ]
    issuers = x509.AccessDescription(
        x509.oid.AuthorityInformationAccessOID.CA_ISSUERS,
        x509.UniformResourceIdentifier("http://allowed.example/issuer"),
    )
    extensions = {
        x509.AuthorityInformationAccess: (
            x509.AuthorityInformationAccess([issuers, *access]),
            False,
        )
    }
    return forge(CA.issuing, replace=extensions)  # type: ignore[arg-type]


def test_a_certificate_may_name_whom_it_is_allowed_to_and_nobody_else(
    places: HttpPlaces,
) -> None:
    responders = Responders.parse("aia", ["http://allowed.example", "http://b.example:81/x"])
    rig = Rig(places, responders)
    assert rig.codes(naming("http://allowed.example/ocsp")) == []
    assert rig.codes(naming("http://evil.example/", "http://B.example:81/here")) == []
    assert places.addresses == [("allowed.example", 80), ("B.example", 81)]
    assert [asked.line for asked in places.asked] == ["POST /ocsp", "POST /here"]
    for refused in (
        naming("http://evil.example/"),
        naming("https://allowed.example/"),
        naming("http://allowed.example:81/"),
        naming("http://allowed.example@evil.example/"),
        naming("http://allowed.example.evil.example/"),
        naming("ldap://allowed.example/"),
        naming("http://allowed.example/\u0020"),
        naming(),
        CA.leaf(),
    ):
        assert rig.codes(refused) == ["ocsp-unreachable"]
    assert len(places.addresses) == 2


@pytest.mark.parametrize(
    ("ocsp", "origins", "words"),
    [
        ("aia", [], "--ocsp-origin http://HOST:PORT"),
        (None, ["http://a.example"], "is for --ocsp aia"),
        (URL, ["http://a.example"], "is for --ocsp aia"),
        ("https://a.example/", [], "over plain http only"),
        ("AIA", [], "is no URL"),
        ("aia", ["a.example"], "is no URL"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    ocsp: str | None, origins: list[str], words: str
) -> None:
    with pytest.raises(Malformed, match=words):
        Responders.parse(ocsp, origins)
    assert Responders.parse(None, []) is None
