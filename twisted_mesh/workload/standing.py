"""How a workload's certificate stands with those who believe what its issuer tells: still taken, and by which path."""

from datetime import datetime

from attrs import define, field
from cryptography import x509
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import PkiError
from pki.svid.chain import revoked_above
from pki.svid.told_path import ToldPaths, other_path, switched
from pki.svid.x509svid import X509Svid
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.trust.trust import Trust


def as_served(
    svid: X509Svid, told: ToldPaths, trust: Trust, now: datetime, log: Logger
) -> X509Svid:
    """A workload's ``svid`` by the path that is told, where such a peer takes that; else as it is, and it is logged."""
    path = other_path(svid, told)
    if path is None:
        return svid
    try:
        return switched(svid, path, lambda chain: trust.judge_ours(svid, now, chain))
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


@define(eq=False)
class IssuersStanding:
    """Whether what stands above certificates leads to a root that is believed, and nothing of it is revoked.

    Asked once for all that stand below the same, however many these are and however often anything is revoked.
    """

    _known: dict[tuple[x509.Certificate, ...], bool] = field(factory=dict, init=False)
    _under: Trust | None = field(default=None, init=False)
    """What is believed, by which that is so."""

    def is_cut_off(self, svid: X509Svid, trust: Trust, now: datetime) -> bool:
        """Whether peers that believe ``trust`` refuse ``svid`` for what stands above its leaf."""
        if self._under is not trust:
            self._under = trust
            self._known.clear()
        above = svid.intermediates
        if above not in self._known:
            verdict = trust.judge_ours(svid, now)
            self._known[above] = bool(revoked_above(verdict.path, trust.revocations)) or any(
                problem.code == Code.UNKNOWN_AUTHORITY for problem in verdict.problems
            )
        return self._known[above]
