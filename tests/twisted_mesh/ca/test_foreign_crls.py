"""Revocation across trust domains: lists from the configured URL, of the other CA's own, or nobody is believed."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import ensureDeferred, maybeDeferred

from pki.svid.federation import Profile, Relationship
from tests.authorities import HOUR, MESH, NOW, OTHER, forge_issuing, key, mesh, pem, sign_crl
from tests.twisted_mesh.http_places import HttpPlaces, reach, response
from twisted_mesh.ca import foreign_crls
from twisted_mesh.ca.foreign_crls import ForeignCrls
from twisted_mesh.ca.foreign_lists import LARGEST_LISTS, ListWatches, issuers_in
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.revocation.crl_watch import PATIENCE

URL = "http://ca.other.example/crls"
PEER = mesh(OTHER)
RELATIONSHIP = Relationship(OTHER, "https://o.example/b", Profile.HTTPS_WEB, None, URL)
PEM = serialization.Encoding.PEM


def lists(
    *serials: int, number: int = 1, ca: Any = PEER, issuer: bool = True, **more: Any
) -> bytes:
    """What a CA of ours serves at ``/crls``: issuers' certificates and their lists."""
    told = pem(sign_crl(ca.issuing, serials=serials, number=number, **more), "X509 CRL")
    return (ca.issuing.certificate.public_bytes(PEM) if issuer else b"") + told


@define(eq=False)
class Rig:
    places: HttpPlaces
    kept: Path | None = None
    changes: int = 0
    crls: ForeignCrls = field(init=False)

    def __attrs_post_init__(self) -> None:
        watches = ListWatches(self.clock, self.now, SeenCrlNumbers(None), self.kept, maybeDeferred)
        self.crls = ForeignCrls(watches.watch_of, self.clock, self.now)
        self.crls.watch(self._changed)
        self.crls.startService()

    @property
    def clock(self) -> Any:
        return self.places.reactor

    def _changed(self) -> None:
        self.changes += 1

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    def publish(self, data: bytes) -> None:
        self.places.answer = lambda request: response(data)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)

    def follow(self) -> None:
        self.crls.follow(RELATIONSHIP, PEER.bundle)
        self.pass_time(2)

    @property
    def serials(self) -> list[int]:
        return sorted(r.serial for r in self.crls.revocations([OTHER]))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Any:
    places = HttpPlaces()
    reach(monkeypatch, places)
    made = Rig(places)
    yield made
    made.crls.stopService()


def test_without_a_url_nothing_is_asked_and_nobody_is_in_doubt(rig: Rig) -> None:
    rig.crls.follow(evolve(RELATIONSHIP, crl_url=None), PEER.bundle)
    rig.pass_time(2)
    assert rig.crls.problem(OTHER) is None
    assert rig.serials == []


def test_what_the_other_ca_has_revoked_is_told_with_its_issuers_key(rig: Rig) -> None:
    rig.publish(lists(5, 7))
    rig.follow()
    assert rig.crls.problem(OTHER) is None
    assert rig.serials == [5, 7]
    assert {r.issuer for r in rig.crls.all_revocations()} == {PEER.issuing.key_id}
    rig.publish(lists(5, 7, 9, number=2))
    before = rig.changes
    rig.pass_time(120)
    assert rig.serials == [5, 7, 9]
    assert rig.changes > before


def test_it_is_read_at_once_where_somebody_asks_for_it(rig: Rig) -> None:
    rig.publish(lists(5))
    rig.follow()
    rig.publish(lists(5, 7, number=2))
    looked = ensureDeferred(rig.crls.look_now(OTHER))
    rig.pass_time(1)
    assert looked.called
    assert rig.serials == [5, 7]
    # And in its turn after that, once.
    asked = len(rig.places.asked)
    rig.pass_time(65)
    assert len(rig.places.asked) == asked + 1


def test_whoever_is_waited_for_too_long_is_waited_for_no_more(rig: Rig) -> None:
    rig.publish(lists(5))
    rig.follow()
    rig.places.answer = lambda request: b""
    looked = ensureDeferred(rig.crls.look_now(OTHER))
    rig.pass_time(PATIENCE + 1)
    assert looked.called
    assert rig.serials == [5]
    assert ensureDeferred(rig.crls.look_now(MESH)).called


def test_a_foreign_ca_that_takes_our_issuers_name_and_key_id_revokes_nobody_of_ours(
    rig: Rig,
) -> None:
    ours = mesh(MESH).issuing
    posing = forge_issuing(
        PEER.root,
        subject=ours.certificate.subject,
        replace={x509.SubjectKeyIdentifier: (key_name(ours.certificate), False)},
    )
    told = pem(sign_crl(posing, serials=[5], number=1), "X509 CRL")
    rig.publish(posing.certificate.public_bytes(PEM) + told)
    rig.follow()
    assert rig.serials == [5]
    assert ours.key_id not in {r.issuer for r in rig.crls.all_revocations()}


def key_name(cert: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def test_before_a_list_was_read_nobody_is_believed(rig: Rig) -> None:
    rig.places.answer = lambda request: response(b"", 404)
    rig.follow()
    found = rig.crls.problem(OTHER)
    assert found is not None
    assert found.code == "stale-revocation"
    assert "see that http://ca.other.example/crls has it" in found.remedy
    before = rig.changes
    rig.publish(lists())
    rig.pass_time(60)
    assert rig.crls.problem(OTHER) is None
    assert rig.changes > before


def test_a_list_that_grows_stale_is_doubted_and_that_is_told(rig: Rig) -> None:
    rig.publish(lists(5))
    rig.follow()
    rig.places.answer = lambda request: response(b"", 503)
    before = rig.changes
    rig.clock.advance(2 * HOUR.total_seconds())
    rig.pass_time(2)
    assert rig.crls.problem(OTHER) is not None
    assert rig.changes > before
    # Whom it listed stays revoked.
    assert rig.serials == [5]


STRANGER = mesh(OTHER, root_key=key("a stranger"), issuing_key=key("a stranger's"))


@pytest.mark.parametrize(
    "data",
    [
        lists(5, issuer=False),
        lists(5, ca=mesh(MESH)),
        lists(5, ca=STRANGER),
        STRANGER.issuing.certificate.public_bytes(PEM) + lists(5, ca=STRANGER, issuer=False),
        b"<html>",
        b"",
        PEER.issuing.certificate.public_bytes(PEM),
        b"x" * (LARGEST_LISTS + 1),
    ],
    ids=[
        "no issuer",
        "ours",
        "a stranger's",
        "one of its name",
        "HTML",
        "empty",
        "no list",
        "large",
    ],
)
def test_what_is_no_list_of_its_own_is_refused(rig: Rig, data: bytes) -> None:
    rig.publish(data)
    rig.follow()
    assert rig.crls.problem(OTHER) is not None
    assert rig.serials == []


def test_an_older_list_changes_nothing(rig: Rig) -> None:
    rig.publish(lists(5, 6, number=9))
    rig.follow()
    rig.publish(lists(7, number=8))
    rig.pass_time(120)
    assert rig.serials == [5, 6]


def test_too_long_a_list_is_not_told_on_and_nobody_is_believed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_crls, "MOST_REVOKED", 3)
    rig.publish(lists(1, 2, 3, 4))
    rig.follow()
    found = rig.crls.problem(OTHER)
    assert found is not None and "lists 4, more than the 3" in found.detail
    assert rig.serials == []


def test_the_last_good_list_counts_at_a_start_at_which_nobody_answers(
    rig: Rig, tmp_path: Path
) -> None:
    first = Rig(rig.places, tmp_path / "crls")
    first.publish(lists(5))
    first.follow()
    first.publish(b"<html>")
    first.pass_time(90)
    first.crls.stopService()
    rig.places.answer = lambda request: response(b"", 503)
    second = Rig(rig.places, tmp_path / "crls")
    second.follow()
    assert second.crls.problem(OTHER) is None
    assert second.serials == [5]
    second.crls.stopService()
    # Once it has ended it counts no more, and what somebody has changed never does.
    (file,) = (tmp_path / "crls").glob("*.pem")
    file.write_bytes(file.read_bytes().replace(b"M", b"N", 3))
    third = Rig(rig.places, tmp_path / "crls")
    third.follow()
    assert third.crls.problem(OTHER) is not None
    assert third.serials == []
    third.crls.stopService()


def test_who_is_forgotten_is_asked_no_more(rig: Rig) -> None:
    rig.publish(lists(5))
    rig.follow()
    rig.crls.forget(OTHER)
    asked = len(rig.places.asked)
    rig.pass_time(300)
    assert len(rig.places.asked) == asked
    assert rig.crls.problem(OTHER) is None
    assert rig.serials == []


def test_an_issuer_counts_if_a_root_of_its_domain_has_certified_it() -> None:
    data = lists()
    assert issuers_in(data, PEER.bundle.roots, NOW) == (PEER.issuing.certificate,)
    assert issuers_in(data, mesh(MESH).bundle.roots, NOW) == ()
    assert issuers_in(data, PEER.bundle.roots, NOW + timedelta(days=4000)) == ()
    leaf = PEER.leaf().public_bytes(PEM)
    assert issuers_in(leaf + data[:10], PEER.bundle.roots, NOW) == ()
    assert issuers_in(b"\x30\x00", PEER.bundle.roots, NOW) == ()
