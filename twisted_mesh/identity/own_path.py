"""The path that we serve: which way to a root stands above our own leaf, and whether that way is still one."""

from collections.abc import Callable, Sequence
from datetime import datetime

from attrs import define, evolve, field
from cryptography import x509
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.spiffe import SpiffePattern
from pki.svid.chain import Verdict, revoked_above
from pki.svid.told_path import ToldPaths, other_path, switched
from pki.svid.x509svid import Purpose, X509Svid
from twisted_mesh.identity.rotation_log import RotationLog
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.trust.judge import Trust


def judged_as_by_peers(
    trust: Trust, svid: X509Svid, now: datetime, chain: Sequence[x509.Certificate] | None = None
) -> Verdict:
    """What a peer that believes the same would say of ``svid``, or of its leaf in another ``chain``."""
    ourselves = evolve(trust, allow=(SpiffePattern.parse(str(svid.spiffe_id)),))
    return ourselves.judge(svid.chain if chain is None else chain, now, Purpose.ANY)


def is_revoked_for_peers(trust: Trust, svid: X509Svid, now: datetime) -> bool:
    """Whether such a peer refuses it because it, or what it rests on, is revoked."""
    problems = judged_as_by_peers(trust, svid, now).problems
    return any(problem.code == Code.REVOKED for problem in problems)


def as_served(
    svid: X509Svid, told: ToldPaths, trust: Trust, now: datetime, log: Logger
) -> X509Svid:
    """A workload's ``svid`` by the path that is told, where such a peer takes that; else as it is, and it is logged."""
    path = other_path(svid, told)
    if path is None:
        return svid
    try:
        return switched(svid, path, lambda chain: judged_as_by_peers(trust, svid, now, chain))
    except PkiError as error:
        log.error(
            "The way above the certificate of {spiffe_id} that is told is not handed out, and the present one stays: "
            "{reasons}",
            event="path-refused",
            spiffe_id=str(svid.spiffe_id),
            codes=codes(error.problems),
            reasons=reasons(error.problems),
        )
        return svid


@define(eq=False, repr=False)
class OwnPath:
    """What the source tells of it, and what was wrong with that."""

    now: Callable[[], datetime]
    told: ToldPaths = field(factory=dict, init=False)
    """What is to be served above whose leaves."""
    _refused: tuple[x509.Certificate, ...] | None = field(default=None, init=False)
    """That was told last of ours, and is not served."""

    def of(self, svid: X509Svid, trust: Trust) -> tuple[X509Svid, PkiError | None]:
        """``svid`` as it is to be served under ``trust``; and why it is not served as it was told, if it is not."""
        path = other_path(svid, self.told)
        if path is None:
            return svid, None
        try:
            return switched(svid, path, lambda c: self.judged(svid, trust, c)), None
        except PkiError as error:
            return svid, error

    def judged(
        self, svid: X509Svid, trust: Trust, chain: Sequence[x509.Certificate] | None = None
    ) -> Verdict:
        """As by peers that believe ``trust``."""
        return judged_as_by_peers(trust, svid, self.now(), chain)

    def revoked(self, svid: X509Svid, trust: Trust) -> Sequence[Problem]:
        """What is revoked of all that stands above our leaf, up to the root."""
        return revoked_above(self.judged(svid, trust).path, trust.revocations)

    def refuse(self, svid: X509Svid, error: PkiError, log: RotationLog) -> None:
        """What is told is not served: say so, once for each."""
        path = other_path(svid, self.told)
        if path != self._refused:
            self._refused = path
            log.path_refused(svid, error)
