"""What is remembered is never more than a judgement of now would say, whatever has changed and however often."""

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest
from attrs import define, evolve, field
from cryptography import x509
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pki.ct.log_list import LogList
from pki.ct.receipt import SctDemand
from pki.errors import Problem
from pki.rules.facts import RuleAction
from pki.rules.rules_file import read_rules
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge as judge_chain
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.spki_pin import PinSet, SpkiHash
from pki.svid.x509svid import Purpose
from pki.validity import rfc3339
from tests.authorities import HOUR, MESH, NOW, OTHER, der, forge, forge_issuing, forge_root, mesh
from twisted_mesh.tls.verify import Handshake
from twisted_mesh.trust.freshness import Freshness, OnStale
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.judgement import Judgement
from twisted_mesh.trust.peer_policy import PeerPolicy
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

CA, OTHERS = mesh(), mesh(OTHER)
ALL = tuple(SpiffePattern.parse(f"spiffe://{domain}/**") for domain in ("mesh.local", OTHER.name))
GOOD = tuple(map(der, (CA.leaf(), *CA.issuing.intermediates)))
_DOUBT = Problem("crl-stale", "in this test")
#: Of keys that vouch for nobody here.
PINS = PinSet.parse(
    [f"spiffe://mesh.local/**={SpkiHash(bytes(32))},{SpkiHash(bytes(31) + b'1')}"],
    "enforce",
    rfc3339(NOW + 5 * HOUR),
    now=NOW,
)
NOBODY = PeerPolicy(
    read_rules({"p": "version = 1\n[[rule]]\nname = 'no'\neffect = 'allow'\nwhen = 'false'\n"}),
    {RuleAction.ACCEPT},
)


@define(eq=False)
class Rig:
    """A judge, what it was told, and the clocks that it goes by."""

    time: datetime = NOW
    seconds: float = 1000.0
    judge: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.judge = Judge(lambda: self.time, Trust(CA.bundles, allow=ALL), self.freshness())

    def freshness(self, max_age: timedelta | None = HOUR, **options: Any) -> Freshness:
        freshness = Freshness(max_age, seconds=lambda: self.seconds, **options)
        freshness.refresh(self.seconds, self.time)
        return freshness

    def believe(self, **changes: Any) -> None:
        self.judge.trust = evolve(self.judge.trust, **changes)

    def revoke(self, issuer: str, cert: x509.Certificate) -> None:
        news = Revocation(issuer, cert.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + 1000 * HOUR)
        self.believe(revocations=self.judge.trust.revocations.merged([news], NOW))

    def anew(self, presented: tuple[bytes, ...], purpose: Purpose) -> Judgement:
        """By a judge that knows all the same and remembers nothing."""
        judge = Judge(lambda: self.time, self.judge.trust, self.judge.freshness)
        return judge.judgement(presented, purpose)


def put(name: str, value: Any) -> Callable[[Rig], None]:
    return lambda rig: setattr(rig, name, value)


def age(rig: Rig) -> None:
    """By more than what may be."""
    rig.seconds += 7200


def no_more_grace(rig: Rig) -> None:
    rig.judge.freshness.on_stale = OnStale.GRACE
    age(rig)
    assert rig.judge.judgement(GOOD, Purpose.CLIENT).verdict.ok
    rig.judge.freshness.on_stale = OnStale.FAIL_CLOSED


def lapse(rig: Rig) -> None:
    """As where nobody has said how old it may be."""
    rig.judge.freshness.max_age = None
    rig.judge.freshness.lapse()


#: Every field that a verdict may depend on: a change of it after which a good chain is refused, at once and by what is
#: remembered too. A text says why a field is none of them. Who adds a field says here which it is.
INPUTS: Mapping[type, Mapping[str, Callable[[Rig], None] | str]] = {
    Trust: {
        "bundles": lambda rig: rig.believe(bundles=OTHERS.bundles),
        "revocations": lambda rig: rig.revoke(CA.issuing.key_id, CA_LEAF),
        "allow": lambda rig: rig.believe(allow=()),
        "beside": "only who is refused without it depends on it; a swap for it forgets all the same",
        "known_issuers": "only the words of a refusal depend on it; a swap for it forgets all the same",
        "pins": lambda rig: rig.believe(pins=PINS),
        "policy": lambda rig: rig.believe(policy=NOBODY),
        "demand": lambda rig: rig.believe(demand=SctDemand(1, LogList(()))),
        "generation": "a number for whoever asks; each swap counts, whatever stands in it",
    },
    Judge: {
        "_now": put("time", NOW + 100 * HOUR),
        "_trust": lambda rig: setattr(rig.judge, "trust", Trust()),
        "freshness": lambda rig: setattr(rig.judge, "freshness", rig.freshness(-HOUR)),
        "changes": "counts the swaps, and is set by nobody else",
        "_verdicts": "what is remembered",
        "_refusals": "what is remembered",
        "_answers": "OCSP answers, which no chain is judged by",
        "told_by": "our own chain is judged by it, and no peer's",
        "_of_ours": "what is remembered of our own chain",
        "pin_watch": "is told, and not asked",
        "sct_watch": "is told, and not asked",
    },
    PinnedJudge: {"_pin": "it is only ever taken away, by a swap of what is believed"},
    Freshness: {
        "max_age": lambda rig: setattr(rig.judge.freshness, "max_age", timedelta(seconds=-1)),
        "on_stale": no_more_grace,
        "seconds": age,
        "doubts": lambda rig: rig.judge.freshness.doubts.append(lambda: _DOUBT),
        "as_of": lambda rig: setattr(rig.judge.freshness, "as_of", -10_000.0),
        "_moment": "for people",
        "_has_lapsed": lapse,
    },
}
CA_LEAF = x509.load_der_x509_certificate(GOOD[0])
_CASES = [
    pytest.param(change, id=f"{kind.__name__}.{name}")
    for kind, inputs in INPUTS.items()
    for name, change in inputs.items()
    if not isinstance(change, str)
]


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
def test_all_that_a_verdict_may_depend_on_is_named(kind: type) -> None:
    inherited = INPUTS[Judge].keys() if kind is PinnedJudge else set()
    assert {found.name for found in attrs.fields(kind)} - inherited == set(INPUTS[kind])


def test_nothing_else_is_asked_for_a_verdict() -> None:
    """What the rules are asked with is in the trust, or is what was presented, for what, and when."""
    of_trust = {"bundles", "revocations", "known_issuers", "beside"}
    assert set(inspect.signature(judge_chain).parameters) == of_trust | {
        "presented",
        "now",
        "purpose",
    }
    assert of_trust < set(INPUTS[Trust])
    for method in (Judge.judgement, PinnedJudge.judgement):
        assert list(inspect.signature(method).parameters) == ["self", "presented", "purpose"]
    of_one_handshake = {
        *("judge", "purpose", "leaf_checks", "requires_staple", "requires_pq", "explains")
    }
    assert {found.name for found in attrs.fields(Handshake) if found.init} == of_one_handshake


@pytest.mark.parametrize("change", _CASES)
def test_a_change_of_each_of_them_is_heeded_at_once(change: Callable[[Rig], None]) -> None:
    rig = Rig()
    handshake = Handshake(rig.judge, Purpose.CLIENT)
    assert handshake.decide(GOOD)
    assert handshake.holds
    change(rig)
    assert not handshake.holds, "a judgement that somebody holds"
    assert not rig.judge.judgement(GOOD, Purpose.CLIENT).verdict.ok, "one that is remembered"
    assert not rig.anew(GOOD, Purpose.CLIENT).verdict.ok, "one of now"


def test_a_clock_that_is_put_back_is_heeded_too() -> None:
    rig = Rig()
    held = rig.judge.judgement(GOOD, Purpose.CLIENT)
    rig.time = CA_LEAF.not_valid_before_utc - timedelta(microseconds=1)
    assert not rig.judge.still_holds(held)
    rig.time = CA_LEAF.not_valid_before_utc
    assert rig.judge.still_holds(held)


def test_a_judgement_of_one_pinned_root_ends_with_what_is_believed_then() -> None:
    root = CA.root.certificate
    judge = PinnedJudge(lambda: NOW, Trust(allow=ALL), pin=RootPin(Fingerprint.of(root), MESH))
    chain = (*GOOD, der(root))
    held = judge.judgement(chain, Purpose.CLIENT)
    assert judge.still_holds(held)
    judge.trust = evolve(judge.trust, allow=())
    assert not judge.still_holds(held)


def test_what_runs_together_is_another_chain() -> None:
    """The remembered verdict is on certificates, and not on their bytes in a row."""
    rig = Rig()
    assert rig.judge.judgement(GOOD, Purpose.CLIENT).verdict.ok
    run_together = (b"".join(GOOD),)
    assert not rig.judge.judgement(run_together, Purpose.CLIENT).verdict.ok
    rig.believe(allow=())
    refused = rig.judge.judgement(GOOD, Purpose.CLIENT).verdict
    assert refused.problems != rig.judge.judgement(run_together, Purpose.CLIENT).verdict.problems


def test_those_who_present_the_same_share_it_in_memory() -> None:
    rig = Rig()
    first, second = (Handshake(rig.judge, Purpose.CLIENT) for _ in range(2))
    assert first.decide(GOOD)
    assert second.decide([bytes(bytearray(cert)) for cert in GOOD])
    assert first.presented is second.presented
    assert first.path is second.path


# Two ways up, each of which comes and goes by the clock.
FIRST_ROOT, SECOND_ROOT = (forge_root(name, end=NOW + 50 * HOUR) for name in ("first", "second"))
EARLY = forge_issuing(FIRST_ROOT, start=NOW - HOUR, end=NOW + 5 * HOUR)
LATE = forge_issuing(SECOND_ROOT, start=NOW + 3 * HOUR, end=NOW + 9 * HOUR)
LEAF = forge(EARLY, start=NOW - HOUR, end=NOW + 8 * HOUR)
BOTH = TrustBundle(MESH, (FIRST_ROOT.certificate, SECOND_ROOT.certificate))
CHAINS: Mapping[str, tuple[bytes, ...]] = {
    "good": GOOD,
    "its leaf alone": GOOD[:1],
    "another trust domain's": tuple(
        map(der, (OTHERS.leaf(OTHER.member("service", "x")), *OTHERS.issuing.intermediates))
    ),
    "two ways up": tuple(map(der, (LEAF, EARLY.certificate, LATE.certificate))),
    "two ways up, the other first": tuple(map(der, (LEAF, LATE.certificate, EARLY.certificate))),
    "one way up": tuple(map(der, (LEAF, EARLY.certificate))),
    "over soon": tuple(map(der, (CA.leaf(lifetime=HOUR / 4), *CA.issuing.intermediates))),
    "nonsense": (b"nonsense", *GOOD[1:]),
    "nobody": (),
}


def test_another_way_up_that_comes_by_the_clock_ends_a_judgement() -> None:
    """While the second way has not begun the first is taken; then it may be the second, which is revoked."""
    rig = Rig()
    rig.believe(bundles=BundleSet.of(BOTH))
    rig.revoke(SECOND_ROOT.key_id, LATE.certificate)
    for name in ("two ways up", "two ways up, the other first"):
        rig.time = NOW
        held = rig.judge.judgement(CHAINS[name], Purpose.CLIENT)
        assert held.verdict.ok
        rig.time = NOW + 4 * HOUR
        assert not rig.judge.still_holds(held)
        of_now = rig.anew(CHAINS[name], Purpose.CLIENT).verdict
        assert rig.judge.judgement(CHAINS[name], Purpose.CLIENT).verdict == of_now


CHANGES: Mapping[str, Callable[[Rig], None]] = {
    "nothing": lambda rig: None,
    "the leaf is revoked": lambda rig: rig.revoke(CA.issuing.key_id, CA_LEAF),
    "the early issuing CA is revoked": lambda rig: rig.revoke(FIRST_ROOT.key_id, EARLY.certificate),
    "the late issuing CA is revoked": lambda rig: rig.revoke(SECOND_ROOT.key_id, LATE.certificate),
    "nobody is revoked": lambda rig: rig.believe(revocations=RevocationSet()),
    "all may": lambda rig: rig.believe(allow=ALL),
    "one trust domain may": lambda rig: rig.believe(allow=ALL[:1]),
    "nobody may": lambda rig: rig.believe(allow=()),
    "our root": lambda rig: rig.believe(bundles=CA.bundles),
    "two other roots": lambda rig: rig.believe(bundles=BundleSet.of(BOTH)),
    "two trust domains": lambda rig: rig.believe(bundles=BundleSet.of(BOTH, OTHERS.bundle)),
    "another certificate of an issuer is at hand": lambda rig: rig.believe(beside=(CA_LEAF,)),
    "pins are set": lambda rig: rig.believe(pins=PINS),
    "pins are taken away": lambda rig: rig.believe(pins=PinSet()),
    "issuers become known": lambda rig: rig.believe(known_issuers=frozenset((b"x",))),
    "as it was": lambda rig: setattr(rig.judge, "trust", rig.judge.trust),
    "revocations are too old": age,
    "revocations are fresh": lambda rig: rig.judge.freshness.refresh(rig.seconds, rig.time),
    "our own certificate ends": lapse,
    "there is grace": lambda rig: setattr(rig.judge.freshness, "on_stale", OnStale.GRACE),
    "there is none": lambda rig: setattr(rig.judge.freshness, "on_stale", OnStale.FAIL_CLOSED),
    "a CRL is stale": lambda rig: rig.judge.freshness.doubts.append(lambda: _DOUBT),
    "no CRL is stale": lambda rig: rig.judge.freshness.doubts.clear(),
}
_STEPS = st.one_of(
    st.sampled_from(sorted(CHANGES)),
    st.floats(-10, 10).map(lambda hours: hours * HOUR),
    st.sampled_from(
        [timedelta(0), timedelta(microseconds=1), timedelta(seconds=-0.5), HOUR, -HOUR, 4 * HOUR]
    ),
)


def told(judgement: Judgement) -> object:
    """A verdict, but for how late a refusal says it is: that may be up to a second ago."""
    codes = [problem.code for problem in judgement.verdict.problems]
    return judgement.verdict.ok, judgement.verdict.spiffe_id, codes


@example(["two other roots", "the late issuing CA is revoked", 4 * HOUR, -4 * HOUR], Purpose.CLIENT)
@example(["revocations are too old", "revocations are fresh"], Purpose.SERVER)
@settings(max_examples=30)
@given(st.lists(_STEPS, max_size=7), st.sampled_from(sorted(Purpose)))
def test_whatever_changes_what_is_remembered_is_what_is_judged(
    steps: list[str | timedelta], purpose: Purpose
) -> None:
    rig = Rig()
    held: list[tuple[tuple[bytes, ...], Judgement]] = []
    for step in (timedelta(0), *steps):
        if isinstance(step, str):
            CHANGES[step](rig)
        else:
            rig.time += step
        for chain, judgement in held:
            if rig.judge.still_holds(judgement):
                assert rig.anew(chain, purpose).verdict.ok, "nobody is heard who would be refused"
        for chain in CHAINS.values():
            of_now = rig.anew(chain, purpose)
            for _ in range(2):  # made, and remembered
                judgement = rig.judge.judgement(chain, purpose)
                assert told(judgement) == told(of_now)
                assert rig.judge.still_holds(judgement) is judgement.verdict.ok
            held.append((chain, judgement))
