"""Between who signs for workloads and the APIs by which workloads ask: values of one moment, and two interfaces."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from attrs import field, frozen
from zope.interface import Attribute, Interface

from pki.errors import PkiError
from pki.keys import KeyAlgorithm
from pki.policy.entry import RegistrationEntry
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid


@frozen
class Bundles:
    """Whom workloads may believe at one moment, each trust domain kept apart."""

    own: TrustDomain
    x509: BundleSet = field(factory=BundleSet)
    jwks: Mapping[TrustDomain, bytes] = field(factory=dict)
    """The JWT bundle of each: a JWKS document whose keys all have ``use`` ``jwt-svid``."""
    crls: Mapping[TrustDomain, Sequence[bytes]] = field(factory=dict)
    """Of each: the CRLs of its root and of all issuing CAs, in DER; none where not all of them are at hand."""

    def only(self, others: Collection[TrustDomain]) -> "Bundles":
        """The same without the other trust domains that are none of ``others``. Our own is always there."""
        kept = {self.own, *others}
        if kept.issuperset(self.x509.bundles) and kept.issuperset(self.jwks):
            return self
        return Bundles(
            self.own,
            BundleSet({at: bundle for at, bundle in self.x509.bundles.items() if at in kept}),
            {at: jwks for at, jwks in self.jwks.items() if at in kept},
            {at: crls for at, crls in self.crls.items() if at in kept},
        )


@frozen
class JwtSvid:
    """A JWT-SVID, as a workload gets it."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    expires_at: datetime
    hint: str = ""


@frozen
class Sources:
    """What entries there are now for the workloads of this machine, and whether anything can be signed for them."""

    entries: Sequence[RegistrationEntry] = ()
    bundles: Bundles | None = None
    """None before the first answer of the CA."""
    problem: PkiError | None = None
    """Why nothing can be signed now, or why what was known does not count any more; None while all is well."""
    is_over: bool = False
    """Whether ``problem`` is final: the agent was banned. Workloads then have nothing, and are told to stop."""
    revocations: object = field(default=None, eq=False, repr=False)
    """Another object whenever what :meth:`IWorkloadIssuer.is_revoked` says may have changed."""
    paths: object = field(default=None, eq=False, repr=False)
    """The same for :meth:`IWorkloadIssuer.as_served`."""


class IWorkloadIssuer(Interface):
    """Who signs for workloads: a CA for its own machine's, or an agent's CA for the agent's."""

    trust_domain: TrustDomain = Attribute("Of all that it signs itself.")
    agent: str | None = Attribute("The agent whose entries count here; None at the CA itself.")

    def sources() -> Sources:
        """Those of this moment."""

    def watch(changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called after each change of :meth:`sources`; what is returned ends that."""

    def is_revoked(svid: X509Svid) -> bool:
        """Whether, by all that is known now, that certificate is, or what it rests on: nobody takes it any more."""

    def as_served(svid: X509Svid) -> X509Svid:
        """The same leaf and key by the path that is to be served now; ``svid`` itself where that is its own."""

    async def issue(
        entry: RegistrationEntry, selectors: frozenset[Selector], algorithm: KeyAlgorithm
    ) -> X509Svid:
        """A fresh key, made here, and a certificate for what ``entry`` buys a process of these selectors.

        Raises :class:`PkiError`.
        """

    async def issue_jwt(
        entry: RegistrationEntry,
        selectors: frozenset[Selector],
        audience: Sequence[str],
        ttl: timedelta | None,
    ) -> JwtSvid:
        """A token for what ``entry`` buys. Raises :class:`PkiError`."""


@frozen
class WorkloadSvid:
    """One identity of a caller."""

    svid: X509Svid
    entry: RegistrationEntry
    hint: str = ""


@frozen
class Refusal:
    """Why a caller gets nothing, or nothing now."""

    problem: PkiError
    """Its text says which selectors were seen, which entry came nearest, and the ``mesh-ctl why`` command."""
    is_final: bool
    """Whether, by all that is known, nothing is this caller's: no entry is met, its entry went, the agent was banned.

    It is told PERMISSION_DENIED, as the Workload API's specification has it where no identity is issued: it stops
    using what it had, and asks again with a backoff. Else nothing can be said or signed just now: UNAVAILABLE.
    """
    is_last: bool = False
    """Whether nobody is followed by it: no other answer will come, and the stream has to end, to be asked for again."""


@frozen
class Snapshot:
    """Everything that one caller may have at one moment."""

    bundles: Bundles | None
    """Own and federated; None while nothing is known."""
    svids: Sequence[WorkloadSvid] = ()
    """The first is the default: entries with a hint that is needed come as the entries say; then by age."""
    refusal: Refusal | None = None
    """Why there is no SVID; None where there is one."""


class ICaller(Interface):
    """A process at the other end of a unix socket, attested by the kernel, for as long as its connection lasts."""

    selectors: frozenset[Selector] = Attribute("What was attested, when it connected.")
    pid: int = Attribute("For people and limits; 0 where it is not known.")

    def has_gone() -> bool:
        """Whether it has exited or become another program: then nothing more is for it.

        Raises :class:`twisted_mesh.attest.handle.NoDescriptors` where nobody can tell just now.
        """


class IFollowing(Interface):
    """Somebody who is told of each new :class:`Snapshot`."""

    def stop() -> None:
        """Tell no more. May be said again."""


class IWorkloads(Interface):
    """The identities of this machine's processes, kept fresh while somebody follows them."""

    async def caller(connected: object) -> ICaller:
        """Attest who is at the other end of ``connected``, a transport over a unix socket. Raises :class:`PkiError`."""

    def follow(caller: ICaller, told: Callable[[Snapshot], None]) -> IFollowing:
        """Have ``told`` called with what is there for ``caller``, as soon as that is known, and after each change.

        Its last snapshot has a final refusal where the caller has gone, or its right.
        """

    async def jwt_svids(
        caller: ICaller, audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> Sequence[JwtSvid]:
        """A token for each identity of ``caller``, or for that one. Raises :class:`PkiError`."""
