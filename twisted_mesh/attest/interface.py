"""The interface of an attestor, and what attestors are made of; every one of them runs the conformance suite."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import frozen
from zope.interface import Attribute, Interface

from pki.policy.entry import RegistrationEntry
from pki.policy.selector import SelectorKind
from twisted_mesh.attest.evidence import Attestation, Evidence
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
        for data that can be no beginning. No route asks for one yet.
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


class AttestorClass(Protocol):
    """A class of attestors, as the registry has it."""

    @property
    def kinds(self) -> tuple[SelectorKind, ...]:
        """Those of :class:`IAttestor`, without one being made."""

    def of(self, means: Means) -> IAttestor:
        """One for a CA that has these means."""
