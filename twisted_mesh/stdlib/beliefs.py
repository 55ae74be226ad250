"""What is believed once a certificate or news have come from the CA: a value from a value."""

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from cryptography import x509

from pki.errors import Problem
from pki.svid.bundle import BundleSet
from pki.svid.pin import Fingerprint
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import X509Svid, extension
from twisted_mesh.api.trust_news import TrustNews
from twisted_mesh.api.trust_question import Belief, new_instance
from twisted_mesh.identity.own_path import OwnPath
from twisted_mesh.interfaces import Identity
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stdlib.log import log, passed_on
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand


def with_identity(trust: Trust, identity: Identity) -> Trust:
    """With the roots that came beside a certificate, and with who issued it."""
    return evolve(
        trust,
        bundles=_merged(trust.bundles, identity.bundles),
        known_issuers=trust.known_issuers | _issuers(identity.svid),
    )


def with_news(trust: Trust, news: TrustNews, now: Now) -> Trust:
    """With what the CA says now; the same object where nothing of it is new."""
    if news.issuers is not None:
        trust = trust.with_beside(news.issuers.values(), news.bundles)
    revocations = trust.revocations.merged(news.revocations, now())
    bundles = trust.bundles if news.bundles == trust.bundles else news.bundles
    pins = (
        trust.pins.narrowed(map(SpkiHash.parse, news.withdrawn_pins)) if trust.pins else trust.pins
    )
    demand = trust.demand
    if demand is not None and news.withdrawn_logs:
        demand = _narrowed(demand, news.withdrawn_logs)
    if (
        revocations is trust.revocations
        and bundles is trust.bundles
        and pins is trust.pins
        and demand is trust.demand
    ):
        return trust
    return evolve(trust, revocations=revocations, bundles=bundles, pins=pins, demand=demand)


def _narrowed(demand: "SctDemand", withdrawn: Iterable[str]) -> "SctDemand":
    """Without the logs of these ids; what is gone does not come back."""
    left = demand.narrowed(frozenset(map(base64.b64decode, withdrawn)))
    if left is not demand:
        from twisted_mesh.trust import sct_log

        sct_log.narrowed(demand, left, passed_on)
    return left


@define(eq=False)
class Standing:
    """How we stand: what we would be refused for by all who hear the same, and the path that the CA tells us."""

    now: Now
    instance: str = field(factory=new_instance)
    path: OwnPath = field(init=False)
    problem: Problem | None = field(default=None, init=False)
    """Why we show our certificate to nobody, though it has not ended; None while we do."""

    def __attrs_post_init__(self) -> None:
        self.path = OwnPath(self.now)

    def hear(self, news: TrustNews) -> None:
        """What is to be served above leaves, where the CA says that."""
        if news.issuers is not None:
            self.path.told = news.issuers

    def served(self, svid: X509Svid, trust: Trust) -> X509Svid:
        """``svid`` as it is to be served under ``trust``, and whether by all that stands above it it can be."""
        served, error = self.path.of(svid, trust)
        if error is not None and self.path.refuse(svid):
            log.error("The way above our certificate that the CA tells is not served: %s", error)
        self.problem = next(iter(self.path.cut_off(served, trust)), None)
        return served

    def belief(self, svid: X509Svid | None, trust: Trust) -> Belief | None:
        """What the CA is told of us; None before there is an identity."""
        bundle = None if svid is None else trust.bundles.get(svid.spiffe_id.trust_domain)
        if svid is None or bundle is None:
            return None
        verdict = self.path.judged(svid, trust)
        top = str(Fingerprint.of(verdict.path[-1])) if verdict.ok else ""
        return Belief(self.instance, bundle.sequence, top)


def _issuers(svid: X509Svid) -> set[bytes]:
    found = (extension(cert, x509.SubjectKeyIdentifier) for cert in svid.intermediates)
    return {identifier.digest for identifier in found if identifier is not None}


def _merged(before: BundleSet, bundles: BundleSet) -> BundleSet:
    for bundle in bundles:
        before = before.with_bundle(bundle)
    return before
