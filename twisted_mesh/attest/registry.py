"""Which attestors there are, and how a CA asks them: every one about every request."""

from collections.abc import Sequence
from typing import Self

from attrs import define, field, frozen

from pki.policy.selector import declare
from twisted_mesh.attest.evidence import Attestation, Evidence, Lapsed
from twisted_mesh.attest.interface import AttestorClass, IAttestor, Means
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
    for attestor in ATTESTORS:
        for kind in attestor.kinds:
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
    _kinds: list[tuple[IAttestor, frozenset[str]]] = field(init=False)
    """Each of them, with the names of the kinds that it has declared."""

    def __attrs_post_init__(self) -> None:
        owners: dict[str, str] = {}
        for attestor in self.attestors:
            for kind in attestor.kinds:
                if kind.name in owners:
                    raise ValueError(
                        f"selectors of {kind.name} are of {owners[kind.name]}, and {attestor.name} declares them too"
                    )
                owners[kind.name] = attestor.name
                declare(kind)
        self._kinds = [(a, frozenset(kind.name for kind in a.kinds)) for a in self.attestors]

    @classmethod
    def registered(cls, means: Means) -> Self:
        """One of each that stands in :data:`ATTESTORS`."""
        return cls(tuple(attestor.of(means) for attestor in ATTESTORS))

    async def attest(self, evidence: Evidence) -> Attested:
        """Ask all of them. Raises what the first of them raises whose evidence is there and no good.

        Raises :class:`RuntimeError` for a selector that its attestor has not declared: whoever is
        trusted to tell one kind of fact is not trusted with another.
        """
        attestations, has_lapsed = [], False
        for attestor, kinds in self._kinds:
            try:
                seen = await attestor.attest(evidence)
            except Lapsed:
                has_lapsed = True
                continue
            if seen is None:
                continue
            if any(selector.kind not in kinds for selector in seen.selectors):
                raise RuntimeError(
                    f"the attestor {attestor.name} has found selectors of a kind that it has not declared"
                )
            attestations.append(seen)
        return Attested(tuple(attestations), has_lapsed)

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        """What who would show ``data`` of that kind has to answer; None where no attestor wants an answer to it."""
        for attestor in self.attestors:
            wanted = await attestor.challenge(kind, data)
            if wanted is not None:
                return wanted
        return None
