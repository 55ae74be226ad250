"""The interface of an attestor, and what attestors are made of; every one of them runs the conformance suite."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import Factory, field, frozen
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from zope.interface import Attribute, Interface

from pki.errors import Problem
from pki.policy.entry import RegistrationEntry
from pki.policy.selector import SelectorKind
from pki.spiffe import TrustDomain
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stores.records import IssuedCertificate, IssuedToken


class IAttestor(Interface):
    """From one kind of evidence to what it proves of whoever asks.

    ``attest`` is called for every request, so it looks first whether there is anything for it.
    """

    name: str = Attribute("For people: which kind of evidence it looks at.")
    kinds: tuple[SelectorKind, ...] = Attribute(
        "Of the selectors that it may find. No two attestors of a CA have one in common."
    )

    async def attest(evidence: Evidence) -> Attestation | None:
        """What the evidence proves; None where there is none of this attestor's kind.

        Raises :class:`PkiError`, :class:`NoProof` mostly, where there is some and it is no good:
        then the request is refused, whatever else it brings. Only after
        :class:`~twisted_mesh.attest.evidence.Lapsed` what else there is counts.
        """

    async def challenge(kind: str, data: bytes) -> bytes | None:
        """What the caller has to answer in its evidence, for an attestor that wants an answer made for it alone.

        ``kind`` and ``data`` are those of :class:`AttestationData`: what the caller would show. None
        where that kind is not this attestor's, and where it asks for no answer. Raises :class:`PkiError`
        for data that can be no beginning. It is ASCII; ``POST /api/v1/attest/challenge`` hands it out.
        """


@frozen
class Means:
    """What a CA has for attestors to be made of."""

    reactor: IReactor
    find_token: Callable[[bytes], Awaitable[IssuedToken | None]]
    """The join token whose SHA-256 that is."""
    entry_of: Callable[[str], RegistrationEntry | None]
    """The registration entry of that id, if it is there and counts."""
    now: Now
    find_certificate: Callable[[int], Awaitable[IssuedCertificate | None]]
    """The certificate of that serial, as it is on record."""
    trust_domain: TrustDomain = field(kw_only=True)
    """Whose CA it is."""
    challenges: Challenges = field(
        kw_only=True,
        default=Factory(lambda self: Challenges(self.reactor.seconds), takes_self=True),
    )
    """Of this process: one that was handed out at one door is taken at each."""
    containers: LocalWorkloads | None = None
    """Who is asked about the containers of this machine's processes; None for nobody."""
    blocked: Callable[[PublicKeyTypes], Problem | None] = lambda key: None
    """Why nothing is certified for a key, be it only evidence here; None where it may be."""
    requires_pq: bool = False
    """Whether whoever is asked over TLS must exchange keys by a hybrid group."""


class AttestorClass(Protocol):
    """A class of attestors, as the registry has it."""

    @property
    def kinds(self) -> tuple[SelectorKind, ...]:
        """Those of :class:`IAttestor`, without one being made."""

    def of(self, means: Means) -> IAttestor:
        """One for a CA that has these means."""


Table = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What ``--attestors FILE`` has under a platform's name: a table, or several."""


class PlatformClass(Protocol):
    """A class of attestors that take evidence of a platform, each configured by a table of ``--attestors FILE``."""

    @property
    def table(self) -> str:
        """The name of its table, and the kind that its evidence has on the wire: ``k8s``."""

    @property
    def kinds(self) -> tuple[SelectorKind, ...]:
        """Those of :class:`IAttestor`, without one being made."""

    def read(self, table: Table, where: str) -> Any:
        """What its table says, as settings of its own: with what files that it names have in them.

        An attestor is made anew at a reload where these are not equal to those of before. ``where`` names the
        table for people. Raises :class:`pki.errors.Malformed`, which names ``where`` and all that is wrong.
        """

    def of(self, settings: Any, means: Means) -> IAttestor:
        """One for a CA that has these means, for all tables of the platform."""
