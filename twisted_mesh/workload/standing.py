"""How a workload's certificate stands with those who believe what its issuer tells: still taken, and by which path."""

from datetime import datetime

from twisted.logger import Logger

from pki.codes import Code
from pki.errors import PkiError
from pki.svid.told_path import ToldPaths, other_path, switched
from pki.svid.x509svid import X509Svid
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.trust.judge import Trust


def is_revoked_for_peers(trust: Trust, svid: X509Svid, now: datetime) -> bool:
    """Whether such a peer refuses it because it, or what it rests on, is revoked."""
    problems = trust.judge_ours(svid, now).problems
    return any(problem.code == Code.REVOKED for problem in problems)


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
