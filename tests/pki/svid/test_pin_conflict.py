"""Whose pins a change of CA keys would break."""

from datetime import timedelta

import pytest
from attrs import evolve
from cryptography import x509

from pki.keys import spki_der
from pki.svid.bundle import TrustBundle
from pki.svid.pin_conflict import ReportedPins, broken_by, must_move
from pki.svid.spki_pin import PinMode, PinSet, SpkiHash
from pki.validity import rfc3339
from tests.authorities import DAY, MESH, NOW, OTHER, key, mesh

NEXT = mesh(root_key=key("the next root"), issuing_key=key("the next issuing CA"))
HELD = mesh()
SERVED = {SpkiHash.of(NEXT.issuing.certificate), SpkiHash.of(NEXT.root.certificate)}


def told(*rules: str, who: str = "spiffe://mesh.local/service/a") -> ReportedPins:
    return ReportedPins(who, PinSet.parse(rules, "enforce", rfc3339(NOW + DAY), now=NOW))


def rule(*names: str, domain: str = MESH.name) -> str:
    known = {
        "root": SpkiHash.of(HELD.root.certificate),
        "issuing": SpkiHash.of(HELD.issuing.certificate),
        "next root": SpkiHash.of(NEXT.root.certificate),
        "next issuing": SpkiHash.of(NEXT.issuing.certificate),
        "backup": SpkiHash.of_spki(spki_der(key("backup").public_key)),
    }
    return f"spiffe://{domain}/**={','.join(str(known[name]) for name in names)}"


def test_it_names_whose_pins_and_which() -> None:
    pinned = told(rule("root", "backup"))
    (broken,) = broken_by([pinned], SERVED, MESH, NOW)
    assert (broken.who, broken.rule, broken.until) == (pinned.who, pinned.pins.rules[0], NOW + DAY)
    said = str(broken)
    assert all(part in said for part in (pinned.who, "spiffe://mesh.local/**", rfc3339(NOW + DAY)))


@pytest.mark.parametrize("moved", ["next root", "next issuing"])
def test_pins_that_have_moved_are_not_broken(moved: str) -> None:
    assert broken_by([told(rule("root", moved))], SERVED, MESH, NOW) == ()


def test_pins_that_only_report_are_not_broken() -> None:
    pinned = told(rule("root", "backup"))
    reports = evolve(pinned, pins=evolve(pinned.pins, mode=PinMode.REPORT))
    assert broken_by([reports], SERVED, MESH, NOW) == ()
    assert broken_by([pinned], SERVED, MESH, NOW + DAY) == ()
    assert len(broken_by([pinned], SERVED, MESH, NOW + DAY - timedelta(seconds=1))) == 1


def test_pins_for_peers_of_another_trust_domain_are_none_of_ours() -> None:
    pinned = told(rule("root", "backup", domain=OTHER.name))
    assert broken_by([pinned], SERVED, MESH, NOW) == ()
    assert len(broken_by([pinned], SERVED, OTHER, NOW)) == 1


def test_what_is_withdrawn_does_not_count() -> None:
    pinned = told(rule("root", "next root"))
    narrowed = evolve(pinned, pins=pinned.pins.narrowed([SpkiHash.of(NEXT.root.certificate)]))
    assert len(broken_by([narrowed], SERVED, MESH, NOW)) == 1


def test_two_that_say_the_same_are_named_once_and_in_order() -> None:
    first = told(rule("root", "backup"))
    second = told(rule("root", "backup"), who="spiffe://mesh.local/service/b")
    found = broken_by([second, first, first], SERVED, MESH, NOW)
    assert [one.who for one in found] == [first.who, second.who]
    assert broken_by([], SERVED, MESH, NOW) == ()


ROOTS = (HELD.root.certificate, NEXT.root.certificate)


def announced(*names: str, roots: tuple[x509.Certificate, ...] = ROOTS[:1]) -> TrustBundle:
    keys = {
        "next issuing": NEXT.issuing.certificate,
        "next root": NEXT.root.certificate,
    }
    pins = tuple(str(SpkiHash.of(keys[name])) for name in names)
    return TrustBundle(MESH, roots, next_keys=pins)


@pytest.mark.parametrize(
    ("pinned", "bundle", "moves"),
    [
        (("issuing", "backup"), announced(), False),
        (("issuing", "backup"), announced("next issuing"), True),
        (("issuing", "next issuing"), announced("next issuing"), False),
        (("root", "backup"), announced("next issuing"), False),
        (("root", "backup"), announced("next issuing", "next root", roots=ROOTS), True),
        (("root", "next root"), announced("next issuing", "next root", roots=ROOTS), False),
        (("issuing", "next root"), announced("next issuing", "next root", roots=ROOTS), True),
        (("issuing", "backup"), announced("next root", roots=ROOTS), False),
    ],
)
def test_pins_must_move_where_keys_are_announced_that_break_them(
    pinned: tuple[str, ...], bundle: TrustBundle, moves: bool
) -> None:
    pins = told(rule(*pinned), rule("backup", "issuing", domain=OTHER.name)).pins
    assert must_move(pins, bundle) == pins.rules[:1] * moves
