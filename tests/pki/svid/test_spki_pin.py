"""Pins of CA keys: however they are written, whom they refuse, and that nothing ever widens them."""

import base64
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from pki.errors import PkiError
from pki.inspect.key_holders import key_holders
from pki.keys import spki_der
from pki.spiffe import SpiffePattern
from pki.svid.pin import Fingerprint
from pki.svid.spki_pin import (
    LONGEST,
    MOST_HASHES,
    MOST_RULES,
    BadPin,
    PinMode,
    PinRule,
    PinSet,
    SpkiHash,
)
from pki.svid.x509svid import certificates_pem
from pki.validity import rfc3339
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, OTHER, key, mesh

CA = mesh()
ROOT, ISSUING = SpkiHash.of(CA.root.certificate), SpkiHash.of(CA.issuing.certificate)
BACKUP, ANOTHER = (SpkiHash.of_spki(spki_der(key(name).public_key)) for name in ("backup", "other"))
PATH = (CA.leaf(), CA.issuing.certificate, CA.root.certificate)
LEAF = SpkiHash.of(PATH[0])
GOOD = str(ROOT)
EVERYBODY = f"{MESH.id}/**"

hashes = st.binary(min_size=32, max_size=32).map(SpkiHash)
patterns = st.sampled_from([EVERYBODY, f"{MESH.id}/service/*", str(BACKEND), f"{OTHER.id}/**"])
rules = st.builds(
    PinRule,
    patterns.map(SpiffePattern.parse),
    st.lists(hashes, min_size=2, max_size=MOST_HASHES, unique=True).map(tuple),
)


def rule(*hashes: SpkiHash, pattern: str = EVERYBODY) -> str:
    return f"{pattern}={','.join(map(str, hashes))}"


def pins(*rules: str, mode: str | None = "enforce", until: str | None = "") -> PinSet:
    return PinSet.parse(rules, mode, rfc3339(NOW + DAY) if until == "" else until, now=NOW)


def broken(held: PinSet, path: Sequence[x509.Certificate] = PATH) -> list[str]:
    return [problem.code for problem in held.problems(BACKEND, path)]


# As they are written.


@given(hashes)
def test_a_hash_is_read_back_as_it_is_written(one: SpkiHash) -> None:
    assert SpkiHash.parse(str(one)) == one


@given(hashes.map(str) | st.text("AE=sha256/+", min_size=48, max_size=53))
def test_whether_it_is_one_can_be_asked(text: str) -> None:
    try:
        SpkiHash.parse(text)
        is_one = True
    except BadPin:
        is_one = False
    assert SpkiHash.is_written(text) is is_one


@given(rules)
def test_a_rule_is_read_back_as_it_is_written(one: PinRule) -> None:
    assert PinRule.parse(str(one)) == one


_ALPHABET = "ABab01+/=_-,.:*\n sh256" + EVERYBODY


@given(st.text() | st.text(_ALPHABET) | st.text().map("sha256/{}".format))
def test_no_text_raises_anything_but_an_error_of_ours(text: str) -> None:
    for parse in (SpkiHash.parse, PinRule.parse):
        try:
            read = parse(text)
        except PkiError as error:
            assert str(error).isprintable()
        else:
            assert str(read) == text, "there is one way to write it"


@given(hashes, st.integers(0, 50), st.characters(codec="ascii"))
def test_a_hash_of_which_a_character_was_changed_is_another_or_none(
    one: SpkiHash, at: int, character: str
) -> None:
    text = str(one)
    changed = text[:at] + character + text[at + 1 :]
    try:
        assert (SpkiHash.parse(changed) == one) is (changed == text)
    except BadPin:
        assert changed != text


DAMAGED = {
    "nothing": "",
    "no padding": GOOD[:-1],
    "one more": GOOD + "=",
    "a character less": GOOD[:-2] + "=",
    "URL's alphabet": "sha256/" + "-_" * 21 + "A=",
    "bits after the end": GOOD[:-2] + "B=",
    "a newline": GOOD + "\n",
    "a blank": f" {GOOD}",
    "quotes": f'"{GOOD}"',
    "HTTP's way": f'pin-sha256="{GOOD[7:]}"',
    "48 bytes": "sha256/" + base64.b64encode(bytes(48)).decode(),
    "nothing after the slash": "sha256/",
    "another alphabet's digits": "sha256/" + "\u0660" * 43 + "=",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_base64_is_told_so_on_one_line(text: str) -> None:
    with pytest.raises(BadPin, match="pki-inspect fingerprint") as refused:
        SpkiHash.parse(text)
    assert refused.value.code == "bad-pin"
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("algorithm", ["sha1", "sha512", "SHA256", "md5", "sha-256", ""])
def test_there_is_no_other_algorithm(algorithm: str) -> None:
    with pytest.raises(BadPin, match="there is no other algorithm"):
        SpkiHash.parse(f"{algorithm}/{GOOD[7:]}")


@pytest.mark.parametrize("prefix", ["sha256:", ""])
def test_the_fingerprint_of_a_certificate_is_no_pin_and_told_apart(prefix: str) -> None:
    text = prefix + Fingerprint.of(CA.root.certificate).digest.hex()
    with pytest.raises(BadPin, match="a fingerprint of a whole certificate"):
        SpkiHash.parse(text)


def test_a_pin_is_what_pki_inspect_prints() -> None:
    (holder,) = key_holders(certificates_pem([CA.root.certificate]))[0]
    assert str(ROOT) == holder.pin


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
def test_a_pin_is_what_the_documentation_has_openssl_print(tmp_path: Path) -> None:
    document = Path(__file__).parents[3] / "docs" / "SECURITY.md"
    (line,) = re.findall(r"^openssl x509 -in ca\.crt .*$", document.read_text(), re.MULTILINE)
    (tmp_path / "ca.crt").write_bytes(certificates_pem([CA.root.certificate]))
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == str(ROOT)


# A rule.


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (EVERYBODY, "has no pin: give two at least"),
        (f"{EVERYBODY}=", "has no pin: give two at least"),
        (rule(ROOT), "has one pin: give two at least"),
        (rule(ROOT, ROOT), "twice: a backup is another key's"),
        (rule(ROOT, BACKUP, ROOT), "twice: a backup is another key's"),
        (f"{EVERYBODY}={GOOD},", "pin 2: '' is no pin"),
        (f"{EVERYBODY}={GOOD},sha1/x", "pin 2: .* no other algorithm"),
        (f"{EVERYBODY}=={GOOD},{BACKUP}", "pin 1"),
        (f"{EVERYBODY}={GOOD}, {BACKUP}", "pin 2"),
        (f"mesh.local/**={GOOD},{BACKUP}", "begins with spiffe://"),
        (f"={GOOD},{BACKUP}", "begins with spiffe://"),
        (GOOD, "begins with spiffe://"),
        (f"{MESH.id}/mesh/ca={GOOD},{BACKUP}", "pin that with --ca-fingerprint"),
        (rule(*(SpkiHash(bytes([n]) * 32) for n in range(MOST_HASHES + 1))), "16 is the most"),
    ],
    ids=map(str, range(14)),
)
def test_a_rule_that_cannot_be_used_is_told_so(text: str, why: str) -> None:
    with pytest.raises(PkiError, match=why):
        PinRule.parse(text)
    with pytest.raises(BadPin, match=f"--peer-pin: .*{why}"):
        pins(text)


# A set of them.


@pytest.mark.parametrize(
    ("mode", "until", "why"),
    [
        ("on", None, "--peer-pin-mode 'on' is neither report nor enforce"),
        ("Enforce", None, "neither report nor enforce"),
        ("enforce", None, "need an end.*--peer-pin-until"),
        ("enforce", "tomorrow", "--peer-pin-until: .* is not a time"),
        ("enforce", "2026-12-01", "is not a time"),
        ("enforce", "30d", r"would begin anew at each start.*2026-12-23T10:00:00Z today"),
        ("enforce", "999999999d", "is not a time"),
        ("enforce", rfc3339(NOW + LONGEST + HOUR), "is too far away: 366 days"),
        ("report", rfc3339(NOW + LONGEST + HOUR), "is too far away: 366 days"),
    ],
)
def test_what_they_do_and_until_when_is_said_as_it_can_be_used(
    mode: str, until: str | None, why: str
) -> None:
    with pytest.raises(BadPin, match=why):
        pins(rule(ROOT, BACKUP), mode=mode, until=until)


@pytest.mark.parametrize(
    ("mode", "until"), [("enforce", None), (None, "2026-12-01T00:00:00Z"), ("report", None)]
)
def test_what_they_do_says_nothing_without_any(mode: str | None, until: str | None) -> None:
    with pytest.raises(BadPin, match="says nothing without a pin"):
        pins(mode=mode, until=until)
    assert not pins(mode=None, until=None)


def test_two_rules_for_one_pattern_are_refused_and_so_are_too_many() -> None:
    with pytest.raises(BadPin, match="has two rules, and both would have to hold"):
        pins(rule(ROOT, BACKUP), rule(ISSUING, BACKUP))
    many = [rule(ROOT, BACKUP, pattern=f"{MESH.id}/service/x{n}") for n in range(MOST_RULES + 1)]
    assert len(pins(*many[1:]).rules) == MOST_RULES
    for too_many in (many, [rule(ROOT, BACKUP, pattern=f"{MESH.id}/{'x' * 40_000}")]):
        with pytest.raises(BadPin, match="are the most"):
            pins(*too_many)


def test_other_words_are_used_where_they_are_options_of_something_else() -> None:
    with pytest.raises(BadPin, match=r"^peer_pin_mode= 'x' is neither"):
        PinSet.parse(
            [rule(ROOT, BACKUP)],
            "x",
            None,
            now=NOW,
            spoken=lambda name: f"{name.replace('-', '_')}=",
        )


def test_they_report_unless_it_is_said_otherwise_and_enforce_until_their_end() -> None:
    usual = pins(rule(ROOT, BACKUP), mode=None, until=None)
    assert usual.mode is PinMode.REPORT and not usual.enforced_at(NOW)
    held = pins(rule(ROOT, BACKUP))
    assert held.enforced_at(NOW) and held.enforced_at(NOW + DAY - timedelta(microseconds=1))
    assert not held.enforced_at(NOW + DAY)
    assert not evolve(held, until=None).enforced_at(NOW), "there is no end that is never"
    late = pins(rule(ROOT, BACKUP), until=rfc3339(NOW - DAY))
    assert not late.enforced_at(NOW), "a service starts all the same"


# Whom they refuse.


def test_a_peer_is_good_by_a_pin_of_its_root_or_of_its_issuing_ca() -> None:
    assert broken(pins(rule(ROOT, BACKUP))) == []
    assert broken(pins(rule(BACKUP, ISSUING))) == []
    assert broken(pins(rule(BACKUP, ANOTHER, pattern=f"{MESH.id}/service/other"))) == []
    assert broken(PinSet()) == []


def test_a_peer_that_nobody_pinned_vouches_for_is_told_by_whom_it_is_and_by_what_rule() -> None:
    (problem,) = pins(rule(BACKUP, ANOTHER)).problems(BACKEND, PATH)
    assert problem.code is Code.PIN_MISMATCH
    assert problem.subject == str(BACKEND)
    for named in (BACKEND, ROOT, ISSUING, EVERYBODY):
        assert str(named) in problem.detail
    assert str(LEAF) not in problem.detail


def test_a_pin_of_the_leaf_does_not_count_and_that_is_said() -> None:
    (problem,) = pins(rule(LEAF, BACKUP)).problems(BACKEND, PATH)
    assert problem.code is Code.PIN_MISMATCH
    assert "it has another with each certificate" in problem.detail


def test_every_rule_that_matches_must_hold() -> None:
    wide, narrow = rule(ROOT, BACKUP), rule(ANOTHER, BACKUP, pattern=str(BACKEND))
    assert broken(pins(wide, narrow)) == ["pin-mismatch"]
    assert broken(pins(wide, rule(ISSUING, BACKUP, pattern=str(BACKEND)))) == []
    none = rule(ANOTHER, BACKUP)
    assert broken(pins(none, narrow)) == ["pin-mismatch", "pin-mismatch"]


# What is withdrawn.


def test_a_pin_that_is_withdrawn_counts_no_more() -> None:
    held = pins(rule(ROOT, BACKUP)).narrowed([ROOT])
    (problem,) = held.problems(BACKEND, PATH)
    assert problem.code is Code.PIN_MISMATCH
    assert f"{ROOT} was, and its CA has withdrawn it" in problem.detail
    assert broken(pins(rule(ROOT, ISSUING)).narrowed([ROOT])) == []


def test_where_all_are_withdrawn_the_way_out_is_told() -> None:
    held = pins(rule(ROOT, BACKUP)).narrowed([BACKUP]).narrowed([ROOT])
    (problem,) = held.problems(BACKEND, PATH)
    assert problem.code is Code.PINS_WITHDRAWN
    assert "--peer-pin-mode to report" in problem.remedy
    assert [str(one.pattern) for one in held.lost] == [EVERYBODY]


def test_what_was_not_pinned_is_not_remembered_when_it_is_withdrawn() -> None:
    held = pins(rule(ROOT, BACKUP))
    assert held.narrowed([ANOTHER]) is held
    assert held.narrowed([]) is held


@given(
    st.lists(rules, max_size=4).map(tuple),
    st.lists(st.frozensets(st.sampled_from([ROOT, ISSUING, BACKUP]) | hashes), max_size=4),
)
def test_nothing_that_is_withdrawn_ever_widens_them(
    some: tuple[PinRule, ...], said: list[frozenset[SpkiHash]]
) -> None:
    held = PinSet((PinRule(SpiffePattern.parse(EVERYBODY), (ROOT, ISSUING)), *some))
    for withdrawn in said:
        narrower = held.narrowed(withdrawn)
        assert narrower.rules == held.rules
        assert narrower.withdrawn >= held.withdrawn
        assert len(broken(narrower)) >= len(broken(held))
        held = narrower


# A backup.


def test_a_rule_of_which_every_pin_is_in_use_has_no_backup() -> None:
    both = pins(rule(ROOT, ISSUING), rule(ROOT, BACKUP, pattern=str(BACKEND)))
    assert both.without_backup(PATH) == both.rules[:1]
    assert both.without_backup(PATH[:1]) == ()


def test_rules_that_keys_do_not_meet_are_told() -> None:
    held = pins(rule(ROOT, BACKUP), rule(ISSUING, ANOTHER, pattern=str(BACKEND)))
    assert held.unmet({ROOT, ISSUING}) == ()
    assert held.unmet({ROOT}) == held.rules[1:]
    assert held.narrowed([ROOT]).unmet({ROOT, ISSUING}) == held.rules[:1]
