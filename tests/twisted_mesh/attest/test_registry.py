"""Every attestor is asked, held to the kinds that it has declared, and what one of them refuses is refused."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from zope.interface import implementer

from pki.errors import PkiError
from pki.policy.policy import NoProof
from pki.policy.selector import KINDS, Selector, SelectorKind, is_label
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest import meters, registry
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence, UnknownAttestation
from twisted_mesh.attest.evidence import Attestation, Evidence, Lapsed
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.attest.kinds import DOCKER, K8S
from twisted_mesh.attest.platforms import PLATFORMS
from twisted_mesh.attest.registry import (
    AT_ONCE,
    ATTESTORS,
    OF_ONE_NETWORK,
    PATIENCE,
    Attested,
    Attestors,
    declare_kinds,
)
from twisted_mesh.evidence.interface import AttestationData
from twisted_mesh.limits.rate_limit import Busy

NOTHING = Evidence()


def kind(name: str) -> SelectorKind:
    return SelectorKind(name, is_label, f"{name}:x")


def proof(text: str) -> Attestation:
    name, _, value = text.rpartition(":")
    return Attestation(text, frozenset({Selector(name, value)}))


@implementer(IAttestor)
@define(eq=False)
class Fixed:
    """Says the same of everybody, and counts how often it is asked."""

    name: str
    says: Attestation | Exception | None = None
    kinds: tuple[SelectorKind, ...] = ()
    wants: dict[str, bytes] = field(factory=dict)
    asked: int = 0

    async def attest(self, evidence: Evidence) -> Attestation | None:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        return self.wants.get(kind)


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        yield


def one(name: str, says: Attestation | Exception | None = None) -> Fixed:
    return Fixed(name, says, (kind(name),))


def test_each_is_asked_and_whoever_has_nothing_to_say_is_left_out() -> None:
    first, second, third = one("a", proof("a:1")), one("b"), one("c", proof("c:1"))
    attested = outcome(Attestors((first, second, third)).attest(NOTHING))
    assert attested == Attested((proof("a:1"), proof("c:1")))
    assert [first.asked, second.asked, third.asked] == [1, 1, 1]


def test_evidence_that_is_no_good_is_refused_whatever_else_there_is() -> None:
    last = one("c", proof("c:1"))
    attestors = Attestors((one("a", proof("a:1")), one("b", NoProof("it is forged")), last))
    with pytest.raises(NoProof, match="it is forged"):
        outcome(attestors.attest(NOTHING))
    assert last.asked == 0


def test_after_what_has_lapsed_all_else_counts() -> None:
    attestors = Attestors((one("a", Lapsed("it has ended")), one("b", proof("b:1"))))
    assert outcome(attestors.attest(NOTHING)) == Attested((proof("b:1"),), has_lapsed=True)


def test_a_selector_of_a_kind_that_was_not_declared_shuts_the_door() -> None:
    attestors = Attestors((one("a", proof("b:1")), one("b", proof("b:1"))))
    with pytest.raises(RuntimeError, match="the attestor a has found selectors of a kind"):
        outcome(attestors.attest(NOTHING))


@pytest.mark.parametrize("says", ["unix:uid:0", "x509:spiffe://mesh.local/mesh/ca", "token:web"])
def test_no_attestor_speaks_for_another(says: str) -> None:
    attestors = Attestors((one("a", proof(says)),))
    with pytest.raises(RuntimeError):
        outcome(attestors.attest(NOTHING))


def test_no_two_declare_one_kind() -> None:
    with pytest.raises(ValueError, match="selectors of a are of first, and second declares them"):
        Attestors((Fixed("first", kinds=(kind("a"),)), Fixed("second", kinds=(kind("a"),))))


def test_a_kind_that_could_be_taken_for_another_is_no_attestors() -> None:
    with pytest.raises(ValueError, match="could be taken for one of unix:uid"):
        Attestors((one("unix"),))


def test_kinds_are_known_once_there_is_an_attestor() -> None:
    assert "a" not in KINDS
    Attestors((one("a"),))
    assert Selector.parse("a:web") == Selector("a", "web")


def test_kinds_are_known_without_attestors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        kinds = (kind("a"), kind("b"))

        @classmethod
        def of(cls, means: Means) -> IAttestor:
            raise AssertionError("nobody is to be made")

    monkeypatch.setattr(registry, "ATTESTORS", (*ATTESTORS, Other))
    declare_kinds()
    declare_kinds()
    assert {"a", "b"} <= KINDS.keys()


def test_every_kind_is_an_attestors_or_a_platforms_and_those_of_pods_are_both() -> None:
    declare_kinds()
    declared = [kind.name for known in (*ATTESTORS, *PLATFORMS.values()) for kind in known.kinds]
    assert set(declared) == KINDS.keys()
    twice = {name for name in declared if declared.count(name) > 1}
    assert twice == {kind.name for kind in K8S}


def test_whoever_wants_an_answer_asks_for_it() -> None:
    first, second = one("a"), Fixed("b", wants={"tpm": b"nonce"})
    attestors = Attestors((), {"other": first, "tpm": second})
    assert outcome(attestors.challenge("tpm", b"key")) == b"nonce"
    assert outcome(attestors.challenge("other", b"key")) is None


# Platforms.


def shown(name: str) -> Evidence:
    return Evidence(attestation=AttestationData(name, b"1"))


def test_a_platform_is_asked_about_evidence_of_its_kind_and_of_no_other() -> None:
    house, ours, other = one("a", proof("a:1")), one("b", proof("b:1")), one("c", proof("c:1"))
    attestors = Attestors((house,), {"b": ours, "c": other})
    assert outcome(attestors.attest(NOTHING)) == Attested((proof("a:1"),))
    assert outcome(attestors.attest(shown("b"))) == Attested((proof("a:1"), proof("b:1")))
    assert [ours.asked, other.asked] == [1, 0]


@pytest.mark.parametrize("kind", ["c", "", "B", "b ", "\n" * 1000])
def test_evidence_of_what_is_not_configured_is_refused_and_nobody_asked(kind: str) -> None:
    house, ours = one("a", proof("a:1")), one("b", proof("b:1"))
    attestors = Attestors((house,), {"b": ours})
    with pytest.raises(UnknownAttestation, match="it takes b") as refusal:
        outcome(attestors.attest(shown(kind)))
    assert refusal.value.code == "unknown-attestation"
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 300
    assert [house.asked, ours.asked] == [0, 0]
    with pytest.raises(UnknownAttestation):
        outcome(attestors.challenge(kind))
    with pytest.raises(UnknownAttestation, match="it takes none"):
        outcome(Attestors((house,)).attest(shown("b")))


def test_a_platform_that_passes_over_its_own_evidence_shuts_the_door() -> None:
    attestors = Attestors((one("a", proof("a:1")),), {"b": one("b")})
    with pytest.raises(RuntimeError, match="passed over evidence of its own kind"):
        outcome(attestors.attest(shown("b")))


def test_no_platform_speaks_for_another() -> None:
    attestors = Attestors((), {"b": one("b", proof("unix:uid:0"))})
    with pytest.raises(RuntimeError, match="the attestor b has found selectors of a kind"):
        outcome(attestors.attest(shown("b")))


def test_platforms_are_replaced_or_stay() -> None:
    old, new = one("b", proof("b:1")), one("c", proof("c:1"))
    attestors = Attestors((one("a"),), {"b": old})
    with pytest.raises(ValueError, match="declares them too"):
        attestors.replace({"c": new, "a": one("a")})
    assert outcome(attestors.attest(shown("b"))) == Attested((proof("b:1"),))
    attestors.replace({"c": new})
    assert outcome(attestors.attest(shown("c"))) == Attested((proof("c:1"),))
    with pytest.raises(UnknownAttestation):
        outcome(attestors.attest(shown("b")))


@implementer(IAttestor)
@define(eq=False)
class Slow:
    """Waits for somebody else, who may never answer."""

    name: str = "slow"
    kinds: tuple[SelectorKind, ...] = (kind("slow"),)
    waiting: list["Deferred[None]"] = field(factory=list)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        self.waiting.append(Deferred())
        await self.waiting[-1]
        return proof("slow:1")

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        return None


def asked(attestors: Attestors, address: str) -> list[Any]:
    """What becomes of evidence from there, once there is anything."""
    found: list[Any] = []
    evidence = evolve(shown("slow"), address=address)
    Deferred.fromCoroutine(attestors.attest(evidence)).addBoth(found.append)
    return found


def test_a_platform_that_does_not_answer_is_given_up() -> None:
    clock, slow = Clock(), Slow()
    attestors = Attestors((), {"slow": slow}, clock)
    found = asked(attestors, "a")
    clock.advance(PATIENCE - 0.1)
    assert not found
    clock.advance(0.2)
    assert found[0].check(AttestorUnavailable)
    assert (found[0].value.code, found[0].value.retry_after) == ("attestor-unavailable", 5)
    again = asked(attestors, "a")
    slow.waiting[-1].callback(None)
    assert again == [Attested((proof("slow:1"),))]


def test_a_flood_from_one_network_costs_another_one_turn_and_has_a_bound() -> None:
    slow = Slow()
    attestors = Attestors((), {"slow": slow}, Clock())
    attestors.replace({"slow": slow, "b": one("b", proof("b:1"))})
    flood = [asked(attestors, "flood") for _ in range(10_000)]
    assert len(slow.waiting) == AT_ONCE
    turned_away = [found for found in flood if found]
    assert len(turned_away) == 10_000 - OF_ONE_NETWORK
    assert all(found[0].check(Busy) for found in turned_away)
    assert outcome(attestors.attest(shown("b"))) == Attested((proof("b:1"),)), "it has its own line"
    honest = asked(attestors, "honest")
    for turn in range(2):
        slow.waiting[turn].callback(None)
    for waiting in slow.waiting[AT_ONCE:]:
        waiting.callback(None)
    assert honest == [Attested((proof("slow:1"),))]


def test_every_platform_declares_its_kinds_before_it_is_loaded() -> None:
    declare_kinds()
    for name, platform in PLATFORMS.items():
        loaded = platform.load()
        assert (loaded.table, loaded.kinds) == (name, platform.kinds)


# Evidence.


def test_a_header_counts_once_in_any_case() -> None:
    evidence = Evidence(headers=Headers({"x-some": [b"one"], "x-two": [b"one", b"two"]}))
    assert evidence.header("X-Some") == b"one"
    assert evidence.header("x-none") is None
    with pytest.raises(NoProof, match="the header X-Two is given 2 times"):
        evidence.header("X-Two")


def test_nothing_secret_is_shown() -> None:
    evidence = Evidence(
        None, None, "mj1_secret", Headers({"a": [b"secret"]}), AttestationData("tpm", b"secret")
    )
    assert "secret" not in repr(evidence)
    assert "tpm" in repr(evidence)


def test_pods_alone_may_be_told_of_by_two_of_whom_each_sees_another_caller() -> None:
    Attestors((Fixed("local", kinds=K8S),), {"k8s": Fixed("k8s", kinds=K8S)})
    with pytest.raises(ValueError, match="docker:label are of local"):
        Attestors((Fixed("local", kinds=DOCKER),), {"k8s": Fixed("k8s", kinds=DOCKER)})


def counted(name: str, verdict: str) -> float:
    (family,) = meters.ATTESTATIONS.collect()
    return sum(
        sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels == {"kind": name, "code": verdict}
    )


@pytest.mark.parametrize(
    ("says", "verdict"),
    [
        (proof("m:1"), "ok"),
        (BadEvidence("it is forged"), "bad-evidence"),
        (AttestorUnavailable("it is away"), "attestor-unavailable"),
        (Busy("there are too many", 1.0), "other"),
        (None, "other"),
    ],
    ids=str,
)
def test_evidence_is_counted_by_what_became_of_it(
    says: Attestation | Exception | None, verdict: str
) -> None:
    attestors = Attestors((), {"m": one("m", says)})
    before = counted("m", verdict)
    with suppress(PkiError, RuntimeError):
        outcome(attestors.attest(shown("m")))
    assert counted("m", verdict) == before + 1


POD, OTHER_POD = "0f3c1f52-7a5e-4a8e-9d0b-3c9e1c2a4b5d", "1f3c1f52-7a5e-4a8e-9d0b-3c9e1c2a4b5d"


def pod(*texts: str) -> Attestation:
    return Attestation("pod", frozenset(map(Selector.parse, texts)))


@pytest.mark.parametrize(
    ("process", "is_refused"),
    [
        (["unix:uid:7"], False),
        (["k8s:ns:prod", f"k8s:pod-uid:{POD}"], False),
        (["k8s:ns:prod", f"k8s:pod-uid:{OTHER_POD}"], True),
        (["k8s:ns:prod"], True),
    ],
    ids=["no pod", "the same", "another", "one without a name"],
)
def test_a_pods_token_and_another_pods_process_make_no_third_pod(
    process: list[str], is_refused: bool
) -> None:
    declare_kinds()
    kinds = (*K8S, KINDS["unix:uid"])
    token = pod("k8s:sa:web", "k8s:ns:dev", f"k8s:pod-uid:{POD}")
    both = Attestors((Fixed("local", pod(*process), kinds),), {"k8s": Fixed("k8s", token, K8S)})
    with pytest.raises(BadEvidence) if is_refused else nullcontext():
        assert len(outcome(both.attest(shown("k8s"))).attestations) == 2


def test_a_platform_that_could_not_judge_is_remembered_until_something_was_good() -> None:
    platform = one("m", AttestorUnavailable("it is away"))
    attestors = Attestors((), {"m": platform})
    for says, troubles in (
        (platform.says, {"m": "it is away"}),
        (Busy("there are too many", 1.0), {"m": "it is away"}),
        (BadEvidence("it is forged"), {"m": "it is away"}),
        (proof("m:1"), {}),
    ):
        platform.says = says
        with suppress(PkiError):
            outcome(attestors.attest(shown("m")))
        assert attestors.troubles == troubles
