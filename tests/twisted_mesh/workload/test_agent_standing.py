"""What an agent makes of its CA's word: of entries it cannot read, of a CA that is older, and of its own identity."""

from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, evolve, field
from cryptography import x509

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.keys import key_id
from pki.policy.entry import EntryDocument
from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import X509Svid
from tests.authorities import HOUR, MESH, forge, key, mesh, overlap, revocation_of
from tests.twisted_mesh.workload.fake_issuer import Turning, entry
from twisted_mesh.api.agent_messages import AgentEntries
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.trust.trust import Trust
from twisted_mesh.workload.agent_issuer import AgentIssuer
from twisted_mesh.workload.interface import Sources

AGENT = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1")


class Away(PkiError):
    code = Code.UNREACHABLE


def agents_svid() -> X509Svid:
    leaf = mesh().leaf(AGENT, leaf_key=key("agent"))
    return X509Svid.assemble([leaf, mesh().issuing.certificate], key("agent"))


@define(eq=False)
class Standing:
    """An agent with an identity, and a CA that answers what the test says."""

    reactor: Turning = field(factory=Turning)
    answers: list[AgentEntries | PkiError] = field(factory=list)
    asked: list[tuple[str, int]] = field(factory=list)
    told: list[Sources] = field(factory=list)
    away: Exception | None = None
    """What every question ends with."""
    identity: Any = field(init=False)
    issuer: AgentIssuer = field(init=False)

    def __attrs_post_init__(self) -> None:
        svid = agents_svid()

        async def ready() -> X509Svid:
            return svid

        async def no_crls() -> None:
            raise Away("no CRLs here")

        self.identity = SimpleNamespace(
            wanted=SimpleNamespace(named=AGENT, spiffe_id=AGENT),
            svid=svid,
            ready=ready,
            trust_store=SimpleNamespace(trust=Trust(mesh().bundles)),
            manager=SimpleNamespace(seconds_left=3600.0, last_problem=None, told_paths={}),
            ca=SimpleNamespace(address="https://ca.test:8443", crls=no_crls),
        )
        self.issuer = AgentIssuer(self.identity, self.reactor, self.reactor.now)
        self.issuer.client = SimpleNamespace(entries=self.entries)  # type: ignore[assignment]
        self.issuer.watch(lambda: self.told.append(self.issuer.sources()))

    async def entries(self, after: str, wait: int) -> AgentEntries:
        self.asked.append((after, wait))
        if self.away is not None:
            raise self.away
        answer = self.answers.pop(0) if self.answers else AgentEntries(after, [])
        if isinstance(answer, PkiError):
            raise answer
        return answer

    def hear(self, *answers: AgentEntries | PkiError) -> Sources:
        """What is so once the CA has said that."""
        self.answers += answers
        if not self.issuer.running:
            self.issuer.startService()
        self.reactor.pump([0.1] * 40)
        return self.issuer.sources()

    def pass_time(self) -> Sources:
        self.reactor.pump([0.1] * 4)
        return self.issuer.sources()


def document(name: str = "web", **changes: Any) -> EntryDocument:
    said = entry(name).members()
    return EntryDocument(**{name: getattr(said, name) for name in said.__struct_fields__} | changes)


def refused(status: int, detail: str = "the CA's own word") -> CaRefused:
    return CaRefused(status, [Problem(Code.NOT_AUTHORIZED, detail)])


@pytest.fixture
def standing() -> Iterator[Standing]:
    made = Standing()
    yield made
    made.issuer.stopService()


def test_entries_come_with_the_bundles(standing: Standing) -> None:
    assert standing.issuer.sources().bundles is None
    found = standing.hear(AgentEntries("1", [document()]))
    assert [one.id for one in found.entries] == ["web"]
    assert found.bundles is not None
    assert found.bundles.own == MESH
    assert MESH in found.bundles.jwks
    assert found.problem is None
    assert standing.asked[0] == ("", 0)
    assert standing.asked[1] == ("1", 45)


def test_the_same_again_is_nothing_new(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    before = len(standing.told)
    standing.pass_time()
    assert len(standing.told) == before


def test_an_entry_of_a_later_version_is_passed_over_and_the_others_count(
    standing: Standing,
) -> None:
    strange = document("later", selectors=["tpm:pcr:7"])
    found = standing.hear(AgentEntries("1", [strange, document()]))
    assert [one.id for one in found.entries] == ["web"]


def test_a_ca_from_before_agents_is_named(standing: Standing) -> None:
    standing.away = refused(404)
    found = standing.hear()
    assert "knows no agents" in str(found.problem)
    assert not found.is_over


def test_without_an_answer_entries_stay(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    standing.away = Away("no answer at https://ca.test:8443")
    found = standing.hear()
    assert [one.id for one in found.entries] == ["web"]
    assert "no answer" in str(found.problem)
    assert not found.is_over
    standing.away = None
    assert standing.hear(AgentEntries("1", [document()])).problem is None


def test_who_is_no_agent_any_more_has_no_entries_until_it_is_one_again(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    standing.away = refused(403, "it is banned")
    over = standing.hear()
    assert over.is_over
    assert over.entries == ()
    assert "it is banned" in str(over.problem)
    standing.away = None
    back = standing.hear(AgentEntries("2", [document()]))
    assert not back.is_over
    assert len(back.entries) == 1


def test_an_agent_whose_certificate_has_ended_keeps_what_there_is(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    standing.identity.manager.seconds_left = -1.0
    standing.identity.manager.last_problem = Away("no answer")
    found = standing.pass_time()
    assert "ended at" in str(found.problem)
    assert "no answer" in str(found.problem)
    assert len(found.entries) == 1
    assert not found.is_over


@pytest.mark.parametrize(
    ("reason", "is_over"),
    [
        (Reason.UNSPECIFIED, False),
        (Reason.SUPERSEDED, False),
        (Reason.KEY_COMPROMISE, True),
        (Reason.CESSATION_OF_OPERATION, True),
    ],
    ids=str,
)
def test_an_agent_whose_certificate_was_revoked_has_nothing(
    standing: Standing, reason: Reason, is_over: bool
) -> None:
    standing.hear(AgentEntries("1", [document()]))
    now: datetime = standing.reactor.now()
    revocation = Revocation(
        key_id(mesh().issuing.certificate.public_key()),
        standing.identity.svid.leaf.serial_number,
        now,
        reason,
        now + HOUR,
    )
    trust = standing.identity.trust_store.trust
    standing.identity.trust_store.trust = evolve(
        trust, revocations=trust.revocations.merged([revocation], now)
    )
    found = standing.pass_time()
    assert found.entries == ()
    assert found.is_over == is_over
    assert "was revoked" in str(found.problem)
    assert standing.issuer.is_revoked(standing.identity.svid)


def test_a_certificate_that_the_ca_turns_away_as_revoked_is_remembered(standing: Standing) -> None:
    """Before the feed has told of it; and a CA that is away afterwards does not bring it back."""
    standing.hear(AgentEntries("1", [document()]))
    standing.away = CaRefused(401, [Problem(Code.REVOKED, "it is revoked")])
    standing.hear()
    standing.away = Away("no answer")
    found = standing.hear()
    assert found.entries == ()
    assert "was revoked" in str(found.problem)


def test_a_bug_does_not_end_the_question(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    standing.away = RuntimeError("a bug")
    assert "a fault in the agent" in str(standing.hear().problem)
    standing.away = None
    assert standing.hear(AgentEntries("2", [document("b")])).entries[0].id == "b"


def test_stopped_it_asks_no_more(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    standing.issuer.stopService()
    before = len(standing.asked)
    standing.reactor.pump([1.0] * 10)
    assert len(standing.asked) == before


BOTH = overlap()
WORKLOAD = X509Svid.assemble((forge(BOTH.by_old), BOTH.by_old.certificate), key(9))


def believing(standing: Standing, *revoked: Revocation) -> None:
    now = standing.reactor.now()
    trust = Trust(BundleSet.of(BOTH.bundle), RevocationSet().merged(revoked, now))
    standing.identity.trust_store.trust = trust


def test_what_workloads_hold_follows_the_path_that_the_ca_tells(standing: Standing) -> None:
    believing(standing)
    standing.hear(AgentEntries("1", [document()]))
    issuer, manager = standing.issuer, standing.identity.manager
    assert issuer.as_served(WORKLOAD) is WORKLOAD
    before = issuer.sources()
    manager.told_paths = {BOTH.key_id: (BOTH.by_new.certificate,)}
    assert standing.pass_time().paths is not before.paths, "whoever watches is told"
    moved = issuer.as_served(WORKLOAD)
    assert moved.chain == (WORKLOAD.leaf, BOTH.by_new.certificate)
    assert issuer.as_served(moved) is moved
    manager.told_paths = {BOTH.key_id: (mesh().issuing.certificate,)}
    assert issuer.as_served(WORKLOAD) is WORKLOAD, "no peer would take that"


@pytest.mark.parametrize(
    "gone", [BOTH.old.certificate, BOTH.by_old.certificate], ids=["root", "issuing CA"]
)
def test_what_rests_on_a_revoked_ca_is_revoked(standing: Standing, gone: x509.Certificate) -> None:
    believing(standing)
    assert not standing.issuer.is_revoked(WORKLOAD)
    believing(standing, revocation_of(BOTH.old, gone))
    assert standing.issuer.is_revoked(WORKLOAD)
    moved = evolve(WORKLOAD, intermediates=(BOTH.by_new.certificate,))
    assert not standing.issuer.is_revoked(moved)


def test_what_leads_to_a_root_that_is_gone_is_replaced(standing: Standing) -> None:
    believing(standing)
    assert not standing.issuer.is_revoked(WORKLOAD)
    trust = Trust(BundleSet.of(BOTH.bundle_of(BOTH.new)))
    standing.identity.trust_store.trust = trust
    assert standing.issuer.is_revoked(WORKLOAD)


def test_what_stands_above_many_is_judged_once(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    believing(standing)
    judged: list[object] = []
    real = Trust.judge_ours
    monkeypatch.setattr(Trust, "judge_ours", lambda *a: judged.append(a) or real(*a))
    for _ in range(1000):
        assert not standing.issuer.is_revoked(WORKLOAD)
    assert len(judged) == 1
    believing(standing)
    assert not standing.issuer.is_revoked(WORKLOAD)
    assert len(judged) == 2, "something else is believed"


def test_an_agent_that_was_turned_away_is_so_by_any_path(standing: Standing) -> None:
    standing.hear(AgentEntries("1", [document()]))
    standing.away = CaRefused(401, [Problem(Code.REVOKED, "it is revoked")])
    standing.hear()
    standing.identity.svid = evolve(standing.identity.svid)
    standing.away = Away("no answer")
    assert standing.hear().entries == ()


def test_an_agent_whose_ca_is_revoked_is_no_agent_that_was_banned(standing: Standing) -> None:
    """Until it has another certificate the CA tells it nothing; its workloads keep what they have."""
    standing.hear(AgentEntries("1", [document()]))
    standing.away = refused(403, "the issuing CA is revoked (rule renew-first)")
    found = standing.hear()
    assert [one.id for one in found.entries] == ["web"]
    assert not found.is_over
    assert "renew-first" in str(found.problem)
    standing.away = refused(403, "it is no agent (rule agents-only)")
    assert standing.hear().is_over
