"""The path that we serve: which way to a root stands above our own leaf, and whether that way is still one.

Imports no Twisted: programs without a reactor serve by a path too.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from attrs import define, field
from cryptography import x509

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.svid.chain import Verdict, revoked_above
from pki.svid.told_path import ToldPaths, other_path, switched
from pki.svid.x509svid import X509Svid
from twisted_mesh.trust.trust import Trust


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
        return trust.judge_ours(svid, self.now(), chain)

    def cut_off(self, svid: X509Svid, trust: Trust) -> Sequence[Problem]:
        """What is revoked of all that stands above our leaf; else that it leads to no root that is believed still."""
        verdict = self.judged(svid, trust)
        revoked = revoked_above(verdict.path, trust.revocations)
        lost = (problem for problem in verdict.problems if problem.code == Code.UNKNOWN_AUTHORITY)
        return revoked or tuple(lost)

    def refuse(self, svid: X509Svid) -> bool:
        """What is told is not served; whether that is to be said, once for each."""
        path = other_path(svid, self.told)
        is_new = path != self._refused
        self._refused = path
        return is_new
