"""The issuer of an agent: its CA, asked over mutual TLS under the agent's own identity.

What becomes of workloads when something is wrong with that identity:

- the CA does not answer, or the certificate has ended: nothing is signed, and what is valid stays
- it was revoked: all that was obtained with it is withdrawn, and asking again may help
- the agent was banned or evicted, or its own entry is gone: the same, and workloads are told to stop
"""

import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from attrs import define, evolve, field
from cryptography import x509
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pki import renewal
from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Refused
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, key_id
from pki.policy.entry import EntryDocument, RegistrationEntry, read_entry
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.api.agent_client import AgentClient
from twisted_mesh.api.refusal import CaRefused, must_renew_first
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.identity.agent import Agent
from twisted_mesh.identity.own_source import new_key
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import Ticker, sleep, spawn
from twisted_mesh.runtime.watchers import Watchers
from twisted_mesh.tls.alerts import Unreachable
from twisted_mesh.trust.store import TICK
from twisted_mesh.trust.trust import Trust
from twisted_mesh.workload.agent_trouble import (
    AgentEnded,
    AgentExpired,
    AgentRevoked,
    AskingBroke,
    ServesNoAgents,
)
from twisted_mesh.workload.crl_keeper import CrlKeeper
from twisted_mesh.workload.interface import Bundles, IWorkloadIssuer, JwtSvid, Sources
from twisted_mesh.workload.names import names_of
from twisted_mesh.workload.standing import IssuersStanding, as_served
from twisted_mesh.workload.stated import stated

_log = logger("workload")

#: Seconds that the CA may wait for another entry.
_WAIT = 45
#: Seconds between two questions at least, and between two attempts at most.
_LEAST, _LONGEST = 0.02, 3.0
#: And at least where the CA, which many wait for, did not wait.
_UNWAITED = 1.0
#: By which the CA says that whoever asks is no agent (any more), and that it knows no agents at all.
_FORBIDDEN, _NOT_FOUND = 403, 404
#: What an agent is banned and evicted with: it may hear of that in place of the CA's own word.
_FOR_GOOD = (Reason.KEY_COMPROMISE, Reason.CESSATION_OF_OPERATION)


@implementer(IWorkloadIssuer)
@define(eq=False, slots=False)
class AgentIssuer(Service):
    """What an agent's CA lets its workloads have. It has nothing to say before it runs."""

    identity: Agent
    clock: IReactorTime
    now: Now = wall_clock
    draw: random.Random = field(factory=random.SystemRandom)
    client: AgentClient = field(init=False)
    _sources: Sources = field(factory=Sources, init=False)
    _entries: Sequence[RegistrationEntry] = field(default=(), init=False)
    _version: str = field(default="", init=False)
    _trouble: PkiError | None = field(default=None, init=False)
    """Why the last question for entries failed."""
    _ended: PkiError | None = field(default=None, init=False)
    """By which the CA said that this is no agent any more."""
    _turned_away: x509.Certificate | None = field(default=None, init=False)
    """The certificate that the CA has turned away as a revoked one, before we had heard of it."""
    _unreadable: set[str] = field(factory=set, init=False)
    """Entries of which it was told that they cannot be read."""
    _seen: tuple[object, ...] = field(default=(), init=False)
    _watchers: Watchers = field(factory=Watchers, init=False)
    _standing: IssuersStanding = field(factory=IssuersStanding, init=False)
    _crls: CrlKeeper = field(init=False)
    _asking: "Deferred[None] | None" = field(default=None, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        declare_kinds()
        self.client = AgentClient(self.identity.ca)
        self._crls = CrlKeeper(self.identity.ca.crls, self._settle, self.clock, self.now)
        self._ticker = Ticker(self.clock, TICK, self._look, "the workloads' CA", _log)

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self.identity.wanted.named.name

    @property
    def trust_domain(self) -> TrustDomain:
        """The agent's own."""
        return self.identity.wanted.named.trust_domain

    def startService(self) -> None:
        """Ask for entries as soon as there is an identity to ask under."""
        super().startService()
        self._ticker.start()
        self._asking = spawn(self._follow_entries(), "asking for entries", _log)

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        self._ticker.stop()
        self._crls.stop()
        if self._asking is not None:
            self._asking.cancel()

    def sources(self) -> Sources:
        """Those of this moment."""
        return self._sources

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called after each change."""
        return self._watchers.add(changed)

    def is_revoked(self, svid: X509Svid) -> bool:
        """Whether the CA has said so, of it or of what stands above it."""
        trust = self.identity.trust_store.trust
        return self._revocation_of(svid) is not None or self._standing.is_cut_off(
            svid, trust, self.now()
        )

    def as_served(self, svid: X509Svid) -> X509Svid:
        """By the path that the CA tells, where a peer of the workload would take that."""
        trust, told = self.identity.trust_store.trust, self.identity.manager.told_paths
        return as_served(svid, told, trust, self.now(), _log)

    async def issue(
        self, entry: RegistrationEntry, selectors: frozenset[Selector], algorithm: KeyAlgorithm
    ) -> X509Svid:
        """A fresh key and its certificate. Raises :class:`PkiError`."""
        key = await new_key(algorithm)
        spiffe_id = SpiffeId.parse(str(entry.spiffe_id.fill(selectors)))
        csr = build_csr(key, spiffe_id, *names_of(entry))
        chain = await self._signed(csr, spiffe_id, entry.id, stated(entry, selectors))
        svid = X509Svid.assemble(chain, key)
        self._judge(svid)
        return svid

    async def issue_jwt(
        self,
        entry: RegistrationEntry,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> JwtSvid:
        """A token. Raises :class:`PkiError`."""
        made = await self.client.jwt(entry.id, stated(entry, selectors), audience, ttl)
        return JwtSvid(
            SpiffeId.parse(made.spiffe_id),
            made.token,
            parse_rfc3339(made.expires_at),
            entry.hint,
        )

    async def _signed(
        self, csr: bytes, spiffe_id: SpiffeId, entry: str, selectors: frozenset[Selector]
    ) -> tuple[x509.Certificate, ...]:
        try:
            return await self.client.sign(csr, spiffe_id, entry, selectors)
        except Unreachable:
            # A connection that was kept may be over by now, which shows in the first question only.
            return await self.client.sign(csr, spiffe_id, entry, selectors)

    def _judge(self, svid: X509Svid) -> None:
        """As a peer of the workload would. Raises :class:`Refused`."""
        trust: Trust = self.identity.trust_store.trust
        verdict = trust.judge_ours(svid, self.now())
        if not verdict.ok:
            raise Refused(verdict.problems)

    # What the CA says.

    async def _follow_entries(self) -> None:
        await self.identity.ready()
        self._settle()
        failures = 0
        while self.running:
            asked_at = self.clock.seconds()
            pause = _LEAST
            try:
                # Without an answer to the last one it is not known whether the CA waits at all.
                wait = 0 if failures or not self._version else _WAIT
                answer = await self.client.entries(self._version, wait)
            except CancelledError:
                raise
            except PkiError as error:
                if not self.running:
                    return  # the question was called off
                failures += 1
                self._failed(error, failures)
                pause = self._pause(failures)
            except ANY_ERROR:
                _log.failure("asking for entries broke", event="workload-broke")
                failures += 1
                self._failed(
                    AskingBroke("there is a fault in the agent: its log has more"), failures
                )
                pause = self._pause(failures)
            else:
                failures = 0
                if wait and answer.version == self._version:
                    pause = _UNWAITED
                self._heard(answer.version, answer.entries)
            await sleep(self.clock, max(_LEAST, pause - (self.clock.seconds() - asked_at)))

    def _pause(self, failures: int) -> float:
        return min(_LONGEST, renewal.backoff(failures - 1, self.draw).total_seconds())

    def _heard(self, version: str, documents: Sequence[EntryDocument]) -> None:
        if version != self._version or self._ended is not None:
            self._entries = tuple(
                entry for document in documents if (entry := self._read(document)) is not None
            )
            _log.info(
                "Known entries for the workloads of this machine: {count}",
                event="workload-entries",
                count=len(self._entries),
            )
        if self._trouble is not None:
            _log.info("The CA tells of entries again", event="workload-entries-back")
        self._version, self._trouble, self._ended = version, None, None
        self._settle()

    def _read(self, document: EntryDocument) -> RegistrationEntry | None:
        """An entry; None for one that this version cannot read: the others count all the same."""
        try:
            return read_entry(document.id, self.trust_domain, document)
        except PkiError as error:
            if document.id not in self._unreadable:
                self._unreadable.add(document.id)
                _log.warn(
                    "The entry {entry} cannot be read here and lets nobody in: {reasons}; is the CA newer than this "
                    "agent?",
                    event="workload-entry-unreadable",
                    entry=document.id,
                    reasons=reasons(error.problems),
                )
            return None

    def _failed(self, error: PkiError, failures: int) -> None:
        status = error.status if isinstance(error, CaRefused) else 0
        if status == _NOT_FOUND:
            error = ServesNoAgents(
                f"the CA at {self.identity.ca.address} knows no agents: update it (it is older than this agent)"
            )
        elif status == _FORBIDDEN and not must_renew_first(error):
            self._ended = AgentEnded(
                f"the agent {self.identity.wanted.named} may serve no workloads any more: {error}"
            )
        if any(problem.code == Code.REVOKED for problem in error.problems):
            svid = self.identity.svid
            self._turned_away = None if svid is None else svid.leaf
        is_other = self._trouble is None or str(self._trouble) != str(error)
        self._trouble = error
        (_log.warn if is_other else _log.debug)(
            "The CA does not tell of entries: {reasons}",
            event="workload-entries-failed",
            reasons=reasons(error.problems),
            failures=failures,
        )
        self._settle()

    # What follows from it.

    def _look(self) -> None:
        """What is believed, and our own certificate, change without anybody telling us."""
        svid, trust = self.identity.svid, self.identity.trust_store.trust
        if svid is None:
            self._settle()
            return
        bundle = trust.bundles.get(self.trust_domain)
        if bundle is not None and self._ended is None:
            self._crls.look(svid, bundle, trust.revocations, trust.beside)
        seen = (
            svid,
            trust,
            self.identity.manager.seconds_left <= 0,
            self.identity.manager.last_problem,
            self.identity.manager.told_paths,
        )
        if seen != self._seen:
            self._seen = seen
            self._settle()

    def _settle(self) -> None:
        """Have :attr:`_sources` be what is so now, and tell if that is something new."""
        before, now = self._sources, self._now()
        if now.bundles == before.bundles:
            now = evolve(now, bundles=before.bundles)
        if now.entries == before.entries:
            now = evolve(now, entries=before.entries)
        is_same = (
            now.bundles is before.bundles
            and now.entries is before.entries
            and now.is_over == before.is_over
            and str(now.problem) == str(before.problem)
            and before.revocations is now.revocations
            and before.paths is now.paths
        )
        if not is_same:
            self._sources = now
            self._watchers.tell()

    def _now(self) -> Sources:
        manager, revocations = self.identity.manager, self.identity.trust_store.trust.revocations
        svid = self.identity.svid
        if svid is None:
            return Sources(problem=manager.last_problem)
        bundles = self._bundles()
        if self._ended is not None:
            return Sources((), bundles, self._ended, is_over=True, revocations=revocations)
        revoked = self._revocation_of(svid)
        if revoked is not None or svid.leaf == self._turned_away:
            problem = AgentRevoked(
                f"the certificate of the agent {svid.spiffe_id} was revoked{_when(revoked)}, and all that it had "
                "obtained is withdrawn: have an administrator look (mesh-ctl agent list), and start it with a new join "
                "token"
            )
            is_over = revoked is not None and revoked.reason in _FOR_GOOD
            return Sources((), bundles, problem, is_over=is_over, revocations=revocations)
        problem_now: PkiError | None = self._trouble
        if manager.seconds_left <= 0:
            ends = rfc3339(svid.validity.not_after)
            why = f": {manager.last_problem}" if manager.last_problem else ""
            problem_now = AgentExpired(
                f"the certificate of the agent {svid.spiffe_id} ended at {ends}, so nothing is signed for it{why}"
            )
        known = bundles if self._version or problem_now is not None else None
        return Sources(
            self._entries, known, problem_now, revocations=revocations, paths=manager.told_paths
        )

    def _bundles(self) -> Bundles:
        trust = self.identity.trust_store.trust
        found: BundleSet = trust.bundles
        lists = self._crls.lists
        return Bundles(
            self.trust_domain,
            found,
            {bundle.trust_domain: bundle.to_jwt_bundle() for bundle in found},
            {self.trust_domain: lists} if lists else {},
        )

    def _revocation_of(self, svid: X509Svid) -> Revocation | None:
        trust = self.identity.trust_store.trust
        bundle = trust.bundles.get(svid.spiffe_id.trust_domain)
        issuers = svid.intermediates[:1] or (bundle.roots if bundle is not None else ())
        for issuer in issuers:
            found = trust.revocations.find(key_id(issuer.public_key()), svid.leaf.serial_number)
            if found is not None:
                return found
        return None


def _when(revocation: Revocation | None) -> str:
    if revocation is None:
        return ""
    return f" at {rfc3339(revocation.revoked_at)} ({revocation.reason})"
