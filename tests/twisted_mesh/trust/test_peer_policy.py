"""A policy at an endpoint: asked once a peer is good and allowed, remembered; by a new one all are judged again."""

from datetime import datetime, timedelta

import pytest
from attrs import define, evolve, field
from cryptography import x509
from twisted.internet.task import Clock

from pki.errors import Problem
from pki.rules.errors import BadPolicy
from pki.rules.facts import RuleAction
from pki.rules.rules_file import read_rules
from pki.spiffe import SpiffePattern
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import HOUR, MESH, NOW, der, forge, key, mesh
from tests.twisted_mesh.peers import peer_of
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.trust.test_reviewer import Judged
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.peer_policy import A_WHILE, PeerPolicy
from twisted_mesh.trust.store import TICK, TrustStore
from twisted_mesh.trust.trust import Trust

CA = mesh()


def policy(*rules: tuple[str, str, str], on: str = "accept") -> PeerPolicy:
    tables = (
        f"[[rule]]\nname = '{name}'\neffect = '{effect}'\nwhen = '''{when}'''\nreason = 'so {name}'\n"
        for name, effect, when in rules
    )
    return PeerPolicy(read_rules({"p.toml": "version = 1\n" + "".join(tables)}), {RuleAction(on)})


EVERYBODY = ("all", "allow", "true")
NO_SHOPS = ("no-shops", "deny", 'peer.path.startsWith("/service/shop")')
BY_DAY = ("by-day", "allow", "time.getHours() < 20")
BROKEN = ("broken", "deny", "peer.dns_names[7] == 'x'")


@define(eq=False)
class Rig:
    policy: PeerPolicy | None = None
    time: datetime = NOW
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    registry: ConnectionRegistry = field(factory=ConnectionRegistry)
    judge: Judge = field(init=False)
    store: TrustStore = field(init=False)

    def __attrs_post_init__(self) -> None:
        everybody = (SpiffePattern.parse(f"{MESH.id}/**"),)
        self.judge = Judge(
            lambda: self.time, Trust(CA.bundles, allow=everybody, policy=self.policy)
        )
        self.store = TrustStore(self.judge, self.registry, self.clock, lambda: self.time, self.log)

    def chain(self, name: str) -> tuple[x509.Certificate, ...]:
        leaf = forge(CA.issuing, uris=[f"{MESH.id}/service/{name}"], end=NOW + 100 * HOUR)
        return (leaf, *CA.issuing.intermediates)

    def problems(self, name: str, purpose: Purpose = Purpose.CLIENT) -> tuple[Problem, ...]:
        return self.judge.verdict(self.chain(name), purpose).problems

    def codes(self, name: str, purpose: Purpose = Purpose.CLIENT) -> list[str]:
        return [str(problem.code) for problem in self.problems(name, purpose)]

    def connect(self, name: str) -> Judged:
        leaf, *_ = self.chain(name)
        connection = Judged(peer_of(leaf, CA), judge=self.judge)
        self.registry.add(connection)
        return connection

    def pass_(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK) + 1):
            self.time += timedelta(seconds=TICK)
            self.clock.advance(TICK)


def test_a_rule_that_says_no_refuses_by_its_name_and_reason() -> None:
    rig = Rig(policy(EVERYBODY, NO_SHOPS))
    assert rig.codes("bank") == []
    (problem,) = rig.problems("shop")
    assert problem.code == "policy-denied"
    assert "rule 'no-shops' says no: so no-shops" in problem.detail


def test_whom_no_rule_allows_is_refused() -> None:
    rig = Rig(policy(("bank", "allow", "peer.path == '/service/bank'")))
    assert rig.codes("bank") == []
    (problem,) = rig.problems("shop")
    assert (problem.code, "no rule of the policy allows it" in problem.detail) == (
        "policy-denied",
        True,
    )


def test_an_error_refuses_and_by_a_code_of_its_own() -> None:
    rig = Rig(policy(EVERYBODY, BROKEN))
    assert rig.codes("bank") == ["policy-unavailable"]
    assert "'broken'" in rig.problems("bank")[0].detail


def test_a_bug_in_the_asking_refuses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = policy(EVERYBODY)

    def breaks(facts: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(broken.rules), "decide", lambda self, facts: breaks(facts))
    assert Rig(broken).codes("bank") == ["policy-unavailable"]


def test_nobody_asks_it_of_a_peer_who_is_refused_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    rig = Rig(policy(EVERYBODY))
    monkeypatch.setattr(PeerPolicy, "objection", lambda *args: asked.append(args))
    rig.judge.trust = evolve(rig.judge.trust, allow=())
    assert rig.codes("bank") == ["not-authorized"]
    assert not asked


def test_a_decision_is_remembered_with_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(policy(EVERYBODY, NO_SHOPS))
    asked: list[object] = []
    objection = PeerPolicy.objection
    monkeypatch.setattr(
        PeerPolicy, "objection", lambda *args: (asked.append(args), objection(*args))[1]
    )
    chains = [rig.chain("bank"), rig.chain("shop")]
    for _ in range(3):
        for chain in chains:
            rig.judge.verdict(chain, Purpose.CLIENT)
    assert len(asked) == 2


def test_an_error_is_not_remembered_for_long() -> None:
    rig = Rig(policy(EVERYBODY, BROKEN))
    chain = rig.chain("bank")
    first = rig.judge.judgement([der(cert) for cert in chain], Purpose.CLIENT)
    assert first.holds_at(NOW)
    assert not first.holds_at(NOW + timedelta(seconds=2))


def test_what_was_decided_by_the_time_holds_for_a_minute() -> None:
    rig = Rig(policy(BY_DAY), time=NOW.replace(hour=19, minute=59, second=30))
    judgement = rig.judge.judgement([der(cert) for cert in rig.chain("bank")], Purpose.CLIENT)
    assert judgement.verdict.ok
    assert judgement.until == rig.time + A_WHILE


def test_a_new_policy_cuts_whom_it_does_not_allow_and_is_another_generation() -> None:
    rig = Rig(policy(EVERYBODY))
    shop, bank = rig.connect("shop"), rig.connect("bank")
    generation = rig.store.trust.generation
    rig.store.govern(policy(EVERYBODY, NO_SHOPS))
    assert shop.severed == ["policy-denied"]
    assert not bank.severed
    assert rig.store.trust.generation == generation + 1


def test_who_is_connected_is_judged_again_as_time_passes() -> None:
    rig = Rig(policy(BY_DAY), time=NOW.replace(hour=19, minute=59, second=30))
    connection = rig.connect("bank")
    rig.store.startService()
    rig.pass_(20)
    assert not connection.severed
    rig.pass_(71)
    assert connection.severed == ["policy-denied"]
    rig.store.stopService()


def test_what_is_judged_by_us_of_us_is_not_subject_to_it() -> None:
    rig = Rig(policy(("nobody", "allow", "false")))
    chain = rig.chain("bank")
    ours = X509Svid(chain[0], chain[1:], key(9), MESH.member("service", "bank"))
    assert rig.store.trust.judge_ours(ours, NOW).ok
    assert rig.judge.on_ours(chain).ok


def test_each_direction_has_its_rules() -> None:
    rules = read_rules(
        {
            "p.toml": "version=1\n[[rule]]\nname='in'\neffect='allow'\non=['accept']\nwhen='true'\n"
            "[[rule]]\nname='out'\neffect='allow'\non=['connect']\nwhen='peer.path == \"/service/bank\"'\n"
        }
    )
    rig = Rig(PeerPolicy(rules, tuple(RuleAction)[3:]))
    assert rig.codes("shop", Purpose.CLIENT) == []
    assert rig.codes("shop", Purpose.SERVER) == ["policy-denied"]
    assert rig.codes("bank", Purpose.SERVER) == []


def test_a_policy_that_could_let_nobody_in_is_no_policy_for_an_endpoint() -> None:
    with pytest.raises(BadPolicy, match="could allow connect: nobody would be let in"):
        PeerPolicy(
            policy(EVERYBODY, on="accept").rules.__class__((), "sha256:"), {RuleAction.CONNECT}
        )
