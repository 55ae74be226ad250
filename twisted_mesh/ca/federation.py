"""Federation: the other trust domains that this CA follows, kept over a restart, and what becomes of them.

What is held of a trust domain is the record's; when it is asked for again, and how old it may be, is the follower's.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from attrs import define, evolve, field

from pki.audit.federation_acts import place_of
from pki.audit.log import Act
from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.policy.principal import Principal
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federation import Relationship
from pki.svid.pin import Fingerprint
from twisted_mesh.ca.audit_log import OURSELVES, AuditLog
from twisted_mesh.ca.federated import Federated, document_of, relationship_of
from twisted_mesh.ca.federation_history import (
    FederationHistory,
    digest_of,
    facts_of,
)
from twisted_mesh.ca.foreign_crls import ForeignCrls
from twisted_mesh.ca.health import FEDERATES_WITH_NOBODY
from twisted_mesh.federation.follower import Follower
from twisted_mesh.federation.following import Following
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.stores.commands import EndFederation, Federate, KeepBundle
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import Conflict, StoredFederation, StoreError, Unknown

_log = logger("federation")

_FINGERPRINTS_TOLD = 8

OnBundle = Callable[[TrustDomain, TrustBundle | None], object]
OnState = Callable[[Following], object]
#: A follower that tells these.
MakeFollower = Callable[[OnBundle, OnState], Follower]


@define(eq=False, repr=False)
class Federations:
    """All trust domains that are federated with. Nothing counts before :meth:`load`."""

    store: IStore
    log: AuditLog
    now: Now
    own: TrustDomain
    make_follower: MakeFollower
    crls: ForeignCrls
    follower: Follower = field(init=False)
    _watching: list[Callable[[], None]] = field(factory=list, init=False)
    """Hear that something else is to be handed out than before."""
    _known: dict[TrustDomain, StoredFederation] = field(factory=dict, init=False)
    """As they are kept."""
    _unreadable: dict[TrustDomain, str] = field(factory=dict, init=False)
    """Those that are kept and cannot be followed, and why."""
    _accepting: set[TrustDomain] = field(factory=set, init=False)
    """Those whose sequence may go back just now, since an administrator says so."""

    def __attrs_post_init__(self) -> None:
        self.follower = self.make_follower(self.heard, self.stands)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called whenever something else is to be handed out than before."""
        self._watching.append(changed)
        self.crls.watch(changed)

    def changed(self) -> None:
        """Say so."""
        for changed in self._watching:
            changed()

    async def load(self) -> None:
        """Take up what the record has, and follow it. Raises :class:`StoreError`."""
        stored = await self.store.federations()
        history = await self._history() if stored else None
        held = {one.trust_domain for one in stored}
        for one in stored:
            self._known[one.trust_domain] = one
            try:
                relationship = relationship_of(one, self.own, held - {one.trust_domain})
                if history is not None:
                    history.vouch(one, relationship)
                bundle = None
                if one.bundle is not None:
                    bundle = TrustBundle.from_jwks(one.trust_domain, one.bundle)
            except PkiError as error:
                self._unreadable[one.trust_domain] = str(error)
                _log.error(
                    "The federation with {trust_domain} on record cannot be used ({error}): nobody there is believed; "
                    "remove it (mesh-ctl federation remove {trust_domain}) and add it anew",
                    event="federation-unreadable",
                    trust_domain=str(one.trust_domain),
                    error=str(error),
                )
                continue
            self._follow(relationship, bundle, one.fetched_at)

    async def _history(self) -> FederationHistory:
        oldest, _ = await self.store.log_entries(0, 1)
        is_whole = all(logged.entry is not None for logged in oldest)
        return FederationHistory.of(await self.store.federation_acts(), is_whole=is_whole)

    def __iter__(self) -> Iterator[Federated]:
        """All that are followed, by name."""
        believed = self.believed()
        for following in self.follower:
            known = self._known.get(following.relationship.trust_domain)
            if known is not None:
                yield self._federated(following, known, believed)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def unreadable(self) -> dict[TrustDomain, str]:
        """Those on record that cannot be followed, and why."""
        return dict(self._unreadable)

    @property
    def held(self) -> set[TrustDomain]:
        """The trust domains of which a bundle is held."""
        return {one.trust_domain for one in self if one.following.bundle is not None}

    def find(self, name: str) -> Federated:
        """Raises :class:`Unknown`, :class:`pki.spiffe.NotASpiffeId`."""
        trust_domain = TrustDomain.parse(name)
        following, known = self.follower.following(trust_domain), self._known.get(trust_domain)
        if following is None or known is None:
            if trust_domain in self._unreadable:
                raise Conflict(
                    f"the federation with {trust_domain} on record cannot be used: "
                    f"{self._unreadable[trust_domain]}; remove it and add it anew"
                )
            raise Unknown(
                f"the trust domain {trust_domain} is not federated with: see mesh-ctl federation list"
            )
        return self._federated(following, known, self.believed())

    def believed(self) -> BundleSet:
        """The bundles that may be handed out now: none that is too old, none whose CRL is missing."""
        return BundleSet.of(
            *(b for b in self.follower.believed if self.crls.problem(b.trust_domain) is None)
        )

    def standing(self) -> tuple[str, Problem | None]:
        """How they stand, in words, and the first thing that is wrong."""
        if not self._known:
            return FEDERATES_WITH_NOBODY, None
        now, told = self.now(), list(self)
        believed = sum(one.is_believed for one in told)
        words = f"{believed} of {len(self._known)} federated trust domains are believed"
        problems = [
            Problem(
                Code.UNHEALTHY_FEDERATION,
                f"{trust_domain}: what is on record of it cannot be used: {why}",
                f"mesh-ctl federation remove {trust_domain}, and add it anew",
            )
            for trust_domain, why in self._unreadable.items()
        ]
        problems += [problem for one in told if (problem := one.problem(now)) is not None]
        if not problems:
            return words, None
        others = f" (and {len(problems) - 1} others)" if len(problems) > 1 else ""
        return words, evolve(problems[0], detail=f"{problems[0].detail}{others}")

    async def add(
        self,
        principal: Principal,
        relationship: Relationship,
        bundle: TrustBundle | None,
        reason: str,
    ) -> Federated:
        """Federate with another trust domain. Raises :class:`Conflict`, :class:`StoreError`."""
        document = None if bundle is None else bundle.to_jwks()
        facts = {
            **facts_of(relationship),
            "roots": "" if bundle is None else _fingerprints(bundle),
            "bundle": "" if document is None else digest_of(document),
            "reason": reason,
        }
        stored = StoredFederation(
            relationship.trust_domain,
            document_of(relationship),
            self.now(),
            document,
            0 if bundle is None else bundle.sequence,
            # It ages from now on, whether its endpoint ever answers or not.
            None if bundle is None else self.now(),
        )
        act = self.log.entry(
            Act.ADMINISTER,
            principal,
            place_of(relationship.trust_domain),
            {"did": "federate", **{name: said for name, said in facts.items() if said}},
        )
        await self.store.apply(Federate(stored, act))
        self._known[relationship.trust_domain] = stored
        _log.info(
            "Federating with {trust_domain}: its bundle is asked for at {url} ({profile})",
            event="federation-added",
            trust_domain=str(relationship.trust_domain),
            url=relationship.url,
            profile=str(relationship.profile),
            requester=str(principal),
        )
        self._follow(relationship, bundle, None)
        self.changed()
        return self.find(str(relationship.trust_domain))

    async def refresh(
        self, principal: Principal, name: str, reason: str, *, accept_older: bool
    ) -> Federated:
        """Ask now for the bundle of that trust domain, and for its CRLs.

        ``accept_older``: have what comes believed whatever its sequence is, which somebody has to answer for. Raises
        :class:`Unknown`, :class:`StoreError`, and what the question comes to where it fails.
        """
        found = self.find(name)
        facts = {"did": "refresh-federation", "accept_older": str(accept_older).lower()}
        if reason:
            facts["reason"] = reason
        await self.log.record(Act.ADMINISTER, place_of(found.trust_domain), facts, principal)
        if accept_older:
            self._accepting.add(found.trust_domain)
        try:
            await self.follower.refresh_now(found.trust_domain, accept_older=accept_older)
        finally:
            self._accepting.discard(found.trust_domain)
            await self.crls.look_now(found.trust_domain)
        return self.find(name)

    async def remove(self, principal: Principal, name: str, reason: str) -> datetime:
        """Federate with that trust domain no more: nobody there is believed from now on. When.

        Raises :class:`Unknown`, :class:`StoreError`, :class:`pki.spiffe.NotASpiffeId`.
        """
        trust_domain, at = TrustDomain.parse(name), self.now()
        facts = {"did": "end-federation"} | ({"reason": reason} if reason else {})
        act = self.log.entry(Act.ADMINISTER, principal, place_of(trust_domain), facts)
        await self.store.apply(EndFederation(trust_domain, act))
        self._known.pop(trust_domain, None)
        self._unreadable.pop(trust_domain, None)
        self.follower.forget(trust_domain)
        self.crls.forget(trust_domain)
        _log.info(
            "Federating with {trust_domain} no more: nobody there is believed from now on",
            event="federation-removed",
            trust_domain=str(trust_domain),
            requester=str(principal),
        )
        self.changed()
        return at

    def heard(self, trust_domain: TrustDomain, bundle: TrustBundle | None) -> None:
        """What is to be believed of a trust domain is another from now on: the follower's ``on_bundle``."""
        following = self.follower.following(trust_domain)
        if following is not None and bundle is not None:
            self.crls.follow(following.relationship, bundle)
        self.changed()

    def stands(self, following: Following) -> None:
        """A trust domain was asked for: the follower's ``on_state``. What it has is kept for the next start."""
        known = self._known.get(following.relationship.trust_domain)
        bundle, fetched_at = following.bundle, following.fetched_at
        if known is None or bundle is None or fetched_at is None or fetched_at == known.fetched_at:
            return
        _ = spawn(self._keep(known, bundle, fetched_at), "keeping a federated bundle", _log)

    async def _keep(
        self, known: StoredFederation, bundle: TrustBundle, fetched_at: datetime
    ) -> None:
        trust_domain, document = known.trust_domain, bundle.to_jwks()
        act = None
        if document != known.bundle:
            act = self.log.entry(
                Act.ADMINISTER,
                OURSELVES,
                place_of(trust_domain),
                {
                    "did": "accept-bundle",
                    "sequence": str(bundle.sequence),
                    "roots": _fingerprints(bundle),
                    "bundle": digest_of(document),
                },
            )
        # Before it is kept: of two that follow each other closely the second is held against the first.
        kept = StoredFederation(
            trust_domain,
            known.relationship,
            known.created_at,
            document,
            bundle.sequence,
            fetched_at,
        )
        if self._known.get(trust_domain) is known:
            self._known[trust_domain] = kept
        accepts_older = trust_domain in self._accepting
        command = KeepBundle(
            trust_domain, document, bundle.sequence, fetched_at, act, accepts_older=accepts_older
        )
        try:
            await self.store.apply(command)
        except Unknown:
            return  # it was removed meanwhile
        except StoreError as error:
            if self._known.get(trust_domain) is kept:
                self._known[trust_domain] = known  # it is tried again with the next answer
            _log.warn(
                "The bundle of {trust_domain} counts, and could not be kept for the next start: {error}",
                event="federation-not-kept",
                trust_domain=str(trust_domain),
                error=str(error),
            )

    def _follow(
        self, relationship: Relationship, bundle: TrustBundle | None, fetched_at: datetime | None
    ) -> None:
        trust_domain = relationship.trust_domain
        self.follower.follow(relationship, bundle, fetched_at)
        self.crls.follow(relationship, self.follower.believed.get(trust_domain))

    def _federated(
        self, following: Following, known: StoredFederation, believed: BundleSet
    ) -> Federated:
        trust_domain = following.relationship.trust_domain
        return Federated(
            following,
            known.created_at,
            believed.get(trust_domain) is not None,
            self.crls.problem(trust_domain),
        )


def _fingerprints(bundle: TrustBundle) -> str:
    """Which roots it has, for the audit log."""
    told = [str(Fingerprint.of(root)) for root in bundle.roots[:_FINGERPRINTS_TOLD]]
    more = len(bundle.roots) - len(told)
    return ", ".join(told) + (f" and {more} others" if more else "") if told else "none"
