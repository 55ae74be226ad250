"""Which attestors there are, and how a CA asks them: every one about every request."""

import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Self, TypeVar

from attrs import define, field, frozen
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime

from pki.errors import PkiError
from pki.policy.selector import declare, values_of
from twisted_mesh.attest import meters, platforms
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence, UnknownAttestation
from twisted_mesh.attest.evidence import Attestation, Evidence, Lapsed
from twisted_mesh.attest.interface import AttestorClass, IAttestor, Means
from twisted_mesh.attest.kinds import K8S
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.svid import SvidAttestor
from twisted_mesh.attest.token import TokenAttestor
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.runtime.tasks import within

T = TypeVar("T")

#: Seconds that it may take to find out whether evidence of a platform is good.
PATIENCE = 8.0
#: Pieces of it of one platform: looked at at once, in line, and of one network both together.
AT_ONCE, IN_LINE, OF_ONE_NETWORK = 32, 512, 128
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
    for kinds in (*house, *others):
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
    """The attestors of a CA. Raises :class:`ValueError` where two of them may find selectors of one kind.

    But for those of pods: of one that calls from this machine the kubelet tells, of one that shows a token the API
    server.
    """

    attestors: Sequence[IAttestor]
    """Those that are asked about every request."""
    platforms: Mapping[str, IAttestor] = field(factory=dict)
    """By the kind that evidence has on the wire: who is asked about evidence of that kind, and of no other."""
    clock: IReactorTime | None = None
    """By which a platform's attestor that takes too long is given up; None for never."""
    troubles: dict[str, str] = field(factory=dict, init=False)
    """By platform: why evidence of it could not be judged, where none has been good since.

    Evidence that is no good says nothing: a stranger's may be refused before anybody is asked.
    """
    _turns: dict[str, FairQueue] = field(factory=dict, init=False)
    """By platform: one that waits for its API server keeps no other waiting."""

    def __attrs_post_init__(self) -> None:
        self._declare(self.platforms)

    @classmethod
    def registered(cls, means: Means, platforms: Mapping[str, IAttestor] | None = None) -> Self:
        """One of each that stands in :data:`ATTESTORS`, and those of the platforms that are configured."""
        house = tuple(attestor.of(means) for attestor in ATTESTORS)
        return cls(house, platforms or {}, means.reactor)

    def replace(self, platforms: Mapping[str, IAttestor]) -> None:
        """Take evidence of these platforms from now on; what is under way ends by those of before.

        Raises :class:`ValueError` as a new one does, and changes nothing then.
        """
        self._declare(platforms)
        for name in self.platforms.keys() - platforms.keys():
            self.troubles.pop(name, None)
        self.platforms = platforms

    def _declare(self, platforms: Mapping[str, IAttestor]) -> None:
        owners: dict[str, str] = {}
        for attestor in (*self.attestors, *platforms.values()):
            for kind in attestor.kinds:
                if kind.name in owners and kind not in K8S:
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
            platform = self.platform(evidence.attestation.kind)
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
            attestations.append(_declared(platform, await self._judged(platform, evidence)))
            _demand_one_pod(attestations)
        return Attested(tuple(attestations), has_lapsed)

    async def _judged(self, platform: IAttestor, evidence: Evidence) -> Attestation:
        """Counted, with the time that it took."""
        verdict, start = "other", time.monotonic()
        try:
            seen = await self._in_turn(platform, evidence)
            verdict = meters.GOOD
        except PkiError as error:
            verdict = str(error.code)
            if isinstance(error, AttestorUnavailable):
                self.troubles[platform.name] = str(error)
            raise
        else:
            self.troubles.pop(platform.name, None)
        finally:
            meters.count_attestation(platform.name, verdict, time.monotonic() - start)
        return seen

    async def _in_turn(self, platform: IAttestor, evidence: Evidence) -> Attestation:
        """Some at once, so that who waits for a slow API server is not joined by everybody; each network in turn.

        Raises :class:`AttestorUnavailable` for one that takes too long, :class:`Busy`, and what it raises itself.
        """
        turns = self._turns.setdefault(platform.name, FairQueue(AT_ONCE, IN_LINE, OF_ONE_NETWORK))
        async with turns.enter(evidence.address):
            try:
                seen = await self._soon(platform.attest(evidence))
            except TimeoutError:
                raise AttestorUnavailable(
                    f"whether this evidence ({platform.name}) is good was not found out in {PATIENCE:g} s: ask again"
                ) from None
        if seen is None:
            raise RuntimeError(f"the attestor {platform.name} passed over evidence of its own kind")
        return seen

    async def _soon(self, work: Awaitable[T]) -> T:
        return await (work if self.clock is None else within(self.clock, PATIENCE, work))

    async def challenge(self, kind: str, data: bytes = b"null") -> bytes | None:
        """What who would show ``data`` of that kind has to answer; None where nothing is to be answered.

        Raises :class:`UnknownAttestation`.
        """
        return await self.platform(kind).challenge(kind, data)

    def platform(self, kind: str) -> IAttestor:
        """Who takes evidence of that kind. Raises :class:`UnknownAttestation`."""
        attestor = self.platforms.get(kind)
        if attestor is None:
            raise UnknownAttestation(kind, self.platforms)
        return attestor


def _demand_one_pod(attestations: Sequence[Attestation]) -> None:
    """Raises :class:`BadEvidence` where one says of a pod what another does not: no two pods make a third."""
    kinds = {kind.name for kind in K8S}
    of_pods = [one for one in attestations if any(s.kind in kinds for s in one.selectors)]
    told = {values_of("k8s:pod-uid", one.selectors) for one in of_pods}
    if len(of_pods) > 1 and (len(told) > 1 or () in told):
        raise BadEvidence(
            "the token is of another pod than the process that shows it is in: show it from its own pod, or over TLS"
        )


def _declared(attestor: IAttestor, seen: Attestation) -> Attestation:
    kinds = {kind.name for kind in attestor.kinds}
    if any(selector.kind not in kinds for selector in seen.selectors):
        raise RuntimeError(
            f"the attestor {attestor.name} has found selectors of a kind that it has not declared"
        )
    return seen
