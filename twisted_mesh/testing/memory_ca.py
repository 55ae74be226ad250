"""A CA in memory: what it issues, and what somebody forges in its name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field
from cryptography import x509

from pki.ct.receipt import SctDemand
from pki.issuing.authority import Authority
from pki.issuing.profile import BACKDATE
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.names import address
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.runtime.log import logger
from twisted_mesh.testing.at_once import at_once
from twisted_mesh.testing.clock import Clock
from twisted_mesh.testing.forgery import forge
from twisted_mesh.testing.member import Member
from twisted_mesh.testing.memory_log import MemoryLog, list_of, with_receipts
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.reviewer import Reviewer
from twisted_mesh.trust.trust import Trust

_log = logger("testing")


def _trust_domain(named: str | TrustDomain) -> TrustDomain:
    return named if isinstance(named, TrustDomain) else TrustDomain.parse(named)


@define(eq=False)
class MemoryCa:
    """The CA of one trust domain: a root and an issuing CA below it, an hour old.

    Of the :attr:`logs` that it has it gathers receipts (SCTs) for all that it issues.
    """

    trust_domain: TrustDomain = field(default=TrustDomain("mesh.test"), converter=_trust_domain)
    clock: Clock = field(factory=Clock)
    logs: Sequence[MemoryLog] = ()
    root: Authority = field(init=False)
    issuing: Authority = field(init=False)
    revoked: RevocationSet = field(factory=RevocationSet, init=False)
    _members: "list[Member]" = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        since = self.clock.now() - timedelta(hours=1)
        self.root = at_once(Authority.create_root(_key(), self.trust_domain, since))
        self.issuing = at_once(self.root.create_issuing(_key(), self.trust_domain, since))

    @property
    def bundle(self) -> TrustBundle:
        """Its trust domain, with its root."""
        return TrustBundle(self.trust_domain, (self.root.certificate,))

    def id(self, name: str) -> SpiffeId:
        """``shop`` is ``spiffe://mesh.test/service/shop``; a whole SPIFFE ID is itself."""
        if name.startswith("spiffe://"):
            return SpiffeId.parse(name)
        return self.trust_domain.member("service", *name.split("/"))

    def issue(
        self,
        name: str,
        *,
        dns: Iterable[str] = ("localhost",),
        ip: Iterable[str] = ("127.0.0.1",),
        lifetime: timedelta = timedelta(hours=1),
        now: datetime | None = None,
        logs: Sequence[MemoryLog] | None = None,
    ) -> X509Svid:
        """A good SVID with its key. Raises :class:`pki.errors.PkiError` as a CA does.

        ``logs`` are those of which it has receipts, all of the CA's if not said: none, and it is what somebody makes
        who has stolen the CA's key.
        """
        key = _key()
        draft = self.issuing.draft(
            key.public_key,
            self.id(name),
            now or self.clock.now(),
            lifetime,
            dns_names=tuple(dns),
            ip_addresses=tuple(map(address, ip)),
        )
        svid = X509Svid.assemble(
            (at_once(self.issuing.sign(draft)), *self.issuing.intermediates), key
        )
        shown = self.logs if logs is None else logs
        if not shown:
            return svid
        at = now or self.clock.now()
        scts = [log.receipt(svid.leaf, self.issuing.certificate, at) for log in shown]
        return with_receipts(svid, self.issuing, scts)

    def member(
        self,
        name: str,
        *,
        allow: Iterable[str] | None = None,
        svid: X509Svid | None = None,
        require_sct: int = 0,
    ) -> "Member":
        """Somebody with that name who lets in ``allow`` (IDs, names or patterns; everybody, if not said).

        And nobody without receipts of ``require_sct`` of the CA's logs.
        """
        wanted = [f"{self.trust_domain.id}/**"] if allow is None else allow
        patterns = tuple(
            SpiffePattern.parse(text if text.startswith("spiffe://") else str(self.id(text)))
            for text in wanted
        )
        demand = SctDemand(require_sct, list_of(self.logs, self.clock.now()))
        trust = Trust(BundleSet.of(self.bundle), self.revoked, patterns, demand=demand)
        member = Member(svid or self.issue(name), Judge(self.clock.now, trust))
        self._members.append(member)
        return member

    def revoke(self, svid: X509Svid) -> None:
        """Have every member of this CA refuse it from now on."""
        now = self.clock.now()
        leaf = svid.leaf
        issuer = key_id(self.issuing.certificate.public_key())
        revocation = Revocation(
            issuer, leaf.serial_number, now, Reason.UNSPECIFIED, leaf.not_valid_after_utc
        )
        self.revoked = self.revoked.merged([revocation], now)
        for member in self._members:
            reviewer = Reviewer(member.judge, ConnectionRegistry(), self.clock, _log)
            reviewer.believe(evolve(member.judge.trust, revocations=self.revoked), [revocation])

    def forged(self, what: str, name: str = "shop") -> X509Svid:
        """An identity that must be refused, by what is wrong with it: one of :data:`FORGERIES`."""
        if what not in FORGERIES:
            raise ValueError(f"{what!r} is none of {', '.join(FORGERIES)}")
        return FORGERIES[what](self, self.id(name))


def _key() -> MemoryKey:
    return MemoryKey.generate(KeyAlgorithm.EC_P256)


def _svid(
    ca: MemoryCa, spiffe_id: SpiffeId, issuer: Authority | None = None, **overrides: Any
) -> X509Svid:
    """Not by ``assemble``, which refuses what a forger shows."""
    key, issuer = _key(), issuer or ca.issuing
    now = ca.clock.now()
    overrides.setdefault("uris", [str(spiffe_id)])
    overrides.setdefault("start", now - BACKDATE)
    overrides.setdefault("end", now + timedelta(hours=1))
    leaf = forge(issuer, subject_key=key, trust_domain=ca.trust_domain, **overrides)
    return X509Svid(leaf, tuple(issuer.intermediates), key, spiffe_id)


def _expired(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    end = ca.clock.now() - timedelta(minutes=1)
    return _svid(ca, spiffe_id, start=end - timedelta(minutes=30), end=end)


def _not_yet_valid(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    start = ca.clock.now() + timedelta(minutes=30)
    return _svid(ca, spiffe_id, start=start, end=start + timedelta(hours=1))


def _other_root(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    return _svid(ca, spiffe_id, MemoryCa(ca.trust_domain, ca.clock).issuing)


def _two_ids(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    return _svid(ca, spiffe_id, uris=[str(spiffe_id), f"{spiffe_id}-too"])


def _no_id(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    dns = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return _svid(ca, spiffe_id, replace={x509.SubjectAlternativeName: (dns, False)})


def _other_domain(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    foreign = TrustDomain(f"not-{ca.trust_domain}").member(*spiffe_id.segments)
    return _svid(ca, foreign)


def _revoked(ca: MemoryCa, spiffe_id: SpiffeId) -> X509Svid:
    svid = ca.issue(str(spiffe_id))
    ca.revoke(svid)
    return svid


#: What can be wrong with an identity, for :meth:`MemoryCa.forged`: each must be refused.
FORGERIES: Mapping[str, Callable[[MemoryCa, SpiffeId], X509Svid]] = {
    "expired": _expired,
    "not-yet-valid": _not_yet_valid,
    "other-root": _other_root,
    "two-ids": _two_ids,
    "no-id": _no_id,
    "other-domain": _other_domain,
    "revoked": _revoked,
}
