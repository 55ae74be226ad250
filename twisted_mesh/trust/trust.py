"""What is believed now: an immutable :class:`Trust`, swapped whole."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import Problem
from pki.spiffe import SpiffeId, SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict, judge
from pki.svid.revocation_set import RevocationSet
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import Purpose, X509Svid

if TYPE_CHECKING:  # most have no policy and demand no receipts, and load nothing of it
    from pki.ct.receipt import SctDemand
    from twisted_mesh.trust.peer_policy import PeerPolicy


@frozen
class Trust:
    """Everything a verdict depends on but the clock."""

    bundles: BundleSet = field(factory=BundleSet)
    revocations: RevocationSet = field(factory=RevocationSet)
    allow: tuple[SpiffePattern, ...] = ()
    """Which peers may connect; one match is enough."""
    known_issuers: frozenset[bytes] = frozenset()
    """Subject key identifiers of the issuing CAs that are known to be ours."""
    beside: tuple[x509.Certificate, ...] = ()
    """Certificates of our issuing CAs, as they are to be served now: where the one that a peer has sent leads to a
    root that is believed no more, another one of the same key may lead to one that is."""
    pins: PinSet = field(factory=PinSet)
    """By which CA keys some peers must be vouched for besides."""
    policy: "PeerPolicy | None" = None
    """What must allow a peer besides, once nothing else is found against it."""
    demand: "SctDemand | None" = None
    """Of how many logs a peer's certificate must have receipts besides (SCTs, RFC 6962)."""
    generation: int = 0

    def with_beside(
        self, paths: Iterable[Sequence[x509.Certificate]], coming: BundleSet | None = None
    ) -> "Trust":
        """With what is to be served above leaves at hand, where one root follows another; the same object for the same.

        ``coming`` are the bundles that are to be believed next. While each trust domain has one root, all that could
        be mended is a peer that sends no issuer, and that has to be told so. What is self-issued would be a root to
        OpenSSL, and is none here.
        """
        told = dict.fromkeys(cert for path in paths for cert in path if cert.issuer != cert.subject)
        if not self._follow_one_another(coming):
            told = dict.fromkeys(cert for cert in told if cert in self.beside)
        beside = tuple(told)
        return self if beside == self.beside else evolve(self, beside=beside)

    def _follow_one_another(self, coming: BundleSet | None) -> bool:
        """Whether a trust domain has several roots, now or one after the other."""
        for bundle in (*self.bundles, *(coming or ())):
            later = None if coming is None else coming.get(bundle.trust_domain)
            if len({*bundle.roots, *(later.roots if later is not None else ())}) > 1:
                return True
        return False

    @property
    def at_hand(self) -> tuple[x509.Certificate, ...]:
        """What OpenSSL is to hold: the roots of all trust domains, and what paths to them may be built of.

        The latter are no anchors, as OpenSSL believes partial chains only where it is told to.
        """
        return (*self.bundles.all_roots, *self.beside)

    def judge(
        self, presented: Sequence[x509.Certificate], now: datetime, purpose: Purpose
    ) -> Verdict:
        """The verdict on a chain, leaf first: :func:`pki.svid.chain.judge`, and whether the peer is allowed.

        And whether it breaks pins, where they are enforced, and lacks receipts that are demanded.
        """
        verdict = judge(
            presented,
            self.bundles,
            self.revocations,
            now=now,
            purpose=purpose,
            known_issuers=self.known_issuers,
            beside=self.beside,
        )
        refusal = self._not_allowed(verdict, purpose)
        refusals: tuple[Problem, ...] = () if refusal is None else (refusal,)
        if self.pins.enforced_at(now):
            refusals += self._unpinned(verdict)
        if self.demand and self._is_below_a_root(verdict):
            # Of a path to a root alone: what it costs to verify receipts is for nobody whom no CA of ours has named.
            refusals += self.demand.problems(verdict.path, now)
        if self.policy is not None and verdict.ok and not refusals:
            denial = self.policy.objection(verdict, purpose, now)
            refusals = () if denial is None else (denial,)
        return evolve(verdict, problems=(*verdict.problems, *refusals)) if refusals else verdict

    def turns(self, verdict: Verdict) -> list[datetime]:
        """Moments at which it may be another verdict, besides those at which a certificate begins or ends."""
        found = [] if self.pins.until is None else [self.pins.until]
        if self.demand and self._is_below_a_root(verdict):
            found += self.demand.turns(verdict.path[0])
        return found

    def _is_below_a_root(self, verdict: Verdict) -> bool:
        """And no certificate of the path is revoked: that is said then, and nothing of what is demanded besides."""
        bundle = verdict.spiffe_id and self.bundles.get(verdict.spiffe_id.trust_domain)
        if not bundle or verdict.path[-1] not in bundle.roots:
            return False
        return all(problem.code is not Code.REVOKED for problem in verdict.problems)

    def _unpinned(self, verdict: Verdict) -> tuple[Problem, ...]:
        spiffe_id = verdict.spiffe_id
        if spiffe_id is None or not self._is_below_a_root(verdict):
            return ()
        return self.pins.problems(spiffe_id, verdict.path)

    def judge_ours(
        self, svid: X509Svid, now: datetime, chain: Sequence[x509.Certificate] | None = None
    ) -> Verdict:
        """What a peer that believes the same would say of ``svid``, or of its leaf in another ``chain``.

        Our pins, our policy and the receipts that we demand are for others; and what we have at hand besides, others
        may lack: the path has to stand as it is sent.
        """
        ourselves = (SpiffePattern.parse(str(svid.spiffe_id)),)
        whoever = evolve(self, allow=ourselves, beside=(), pins=PinSet(), policy=None, demand=None)
        return whoever.judge(svid.chain if chain is None else chain, now, Purpose.ANY)

    def _not_allowed(self, verdict: Verdict, purpose: Purpose) -> Problem | None:
        spiffe_id = verdict.spiffe_id
        if spiffe_id is None or any(pattern.matches(spiffe_id) for pattern in self.allow):
            return None
        allowed = ", ".join(map(str, self.allow)) or "nobody"
        return Problem(
            Code.NOT_AUTHORIZED,
            f"{spiffe_id} is not among those that may: {allowed}",
            self._how_to_allow(spiffe_id, purpose),
            "--allow, --server-id",
            str(spiffe_id),
        )

    def _how_to_allow(self, spiffe_id: SpiffeId, purpose: Purpose) -> str:
        """What to change, and on which side. ``purpose`` tells whether we have called it, or it us."""
        if purpose is not Purpose.SERVER:
            return f"to let it in, add --allow {spiffe_id} here; else have it call as one of these (--spiffe-id)"
        if len(self.allow) == 1 and str(self.allow[0]).endswith("/mesh/ca"):
            if spiffe_id.path == "/mesh/ca":
                return f"that is the CA of {spiffe_id.trust_domain}: check --ca-url, and our trust domain"
            return "that is a service and not the CA: check the port in --ca-url"
        return f"to accept it, call with --server-id {spiffe_id}; else check --server, which leads to another service"
