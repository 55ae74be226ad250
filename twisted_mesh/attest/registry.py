"""Which attestors there are, and how a CA asks them: every one about every request."""

from collections.abc import Mapping, Sequence
from typing import Self

from attrs import define, field, frozen

from pki.policy.selector import declare
from twisted_mesh.attest import platforms
from twisted_mesh.attest.errors import UnknownAttestation
from twisted_mesh.attest.evidence import Attestation, Evidence, Lapsed
from twisted_mesh.attest.interface import AttestorClass, IAttestor, Means
from twisted_mesh.attest.kinds import LOCAL_KINDS
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.svid import SvidAttestor
from twisted_mesh.attest.token import TokenAttestor

#: Every attestor of a CA, one line each, in the order in which they are asked.
ATTESTORS: Sequence[AttestorClass] = (
    ProcessAttestor,
    SvidAttestor,
    TokenAttestor,
)


def declare_kinds() -> None:
    """Have this process read the selectors of all of them, for who reads entries without making attestors."""
    house = (attestor.kinds for attestor in ATTESTORS)
    others = (platform.kinds for platform in platforms.PLATFORMS.values())
    for kinds in (*house, *others, LOCAL_KINDS):
        for kind in kinds:
            declare(kind)


@frozen
class Attested:
    """All that was proven of who asks, by one request."""

    attestations: tuple[Attestation, ...] = ()
    """In the order of the attestors; of each attestor one at most."""
    has_lapsed: bool = False
    """Whether some evidence was good once, and is no more: see :class:`Lapsed`."""


@define(eq=False, repr=False)
class Attestors:
    """The attestors of a CA. Raises :class:`ValueError` where two of them may find selectors of one kind."""

    attestors: Sequence[IAttestor]
    """Those that are asked about every request."""
    platforms: Mapping[str, IAttestor] = field(factory=dict)
    """By the kind that evidence has on the wire: who is asked about evidence of that kind, and of no other."""

    def __attrs_post_init__(self) -> None:
        self._declare(self.platforms)

    @classmethod
    def registered(cls, means: Means, platforms: Mapping[str, IAttestor] | None = None) -> Self:
        """One of each that stands in :data:`ATTESTORS`, and those of the platforms that are configured."""
        return cls(tuple(attestor.of(means) for attestor in ATTESTORS), platforms or {})

    def replace(self, platforms: Mapping[str, IAttestor]) -> None:
        """Take evidence of these platforms from now on; what is under way ends by those of before.

        Raises :class:`ValueError` as a new one does, and changes nothing then.
        """
        self._declare(platforms)
        self.platforms = platforms

    def _declare(self, platforms: Mapping[str, IAttestor]) -> None:
        owners: dict[str, str] = {}
        for attestor in (*self.attestors, *platforms.values()):
            for kind in attestor.kinds:
                if kind.name in owners:
                    raise ValueError(
                        f"selectors of {kind.name} are of {owners[kind.name]}, and {attestor.name} declares them too"
                    )
                owners[kind.name] = attestor.name
                declare(kind)

    async def attest(self, evidence: Evidence) -> Attested:
        """Ask all of them. Raises what the first of them raises whose evidence is there and no good.

        Raises :class:`UnknownAttestation` for evidence of a platform that is not configured: it is never passed
        over. Raises :class:`RuntimeError` for a selector that its attestor has not declared: whoever is
        trusted to tell one kind of fact is not trusted with another.
        """
        platform = None
        if evidence.attestation is not None:
            platform = self._platform(evidence.attestation.kind)
        attestations, has_lapsed = [], False
        for attestor in self.attestors:
            try:
                seen = await attestor.attest(evidence)
            except Lapsed:
                has_lapsed = True
                continue
            if seen is not None:
                attestations.append(_declared(attestor, seen))
        if platform is not None:
            # The last, since it may take longest: whoever else refuses is heard before.
            seen = await platform.attest(evidence)
            if seen is None:
                raise RuntimeError(
                    f"the attestor {platform.name} passed over evidence of its own kind"
                )
            attestations.append(_declared(platform, seen))
        return Attested(tuple(attestations), has_lapsed)

    async def challenge(self, kind: str, data: bytes = b"null") -> bytes | None:
        """What who would show ``data`` of that kind has to answer; None where nothing is to be answered.

        Raises :class:`UnknownAttestation`.
        """
        return await self._platform(kind).challenge(kind, data)

    def _platform(self, kind: str) -> IAttestor:
        attestor = self.platforms.get(kind)
        if attestor is None:
            raise UnknownAttestation(kind, self.platforms)
        return attestor


def _declared(attestor: IAttestor, seen: Attestation) -> Attestation:
    kinds = {kind.name for kind in attestor.kinds}
    if any(selector.kind not in kinds for selector in seen.selectors):
        raise RuntimeError(
            f"the attestor {attestor.name} has found selectors of a kind that it has not declared"
        )
    return seen
