"""Who else, besides the CA, is heard about revocation: the options that say so, and what comes of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from twisted.logger import Logger

from twisted_mesh.http.fetch import Fetcher
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.revocation.crl_source import CrlSource, crl_issuers
from twisted_mesh.revocation.crl_watch import CrlWatch
from twisted_mesh.revocation.ocsp_checker import OcspChecker, Responders

#: Seconds for one request: a CRL may be 64 MiB long, and nobody waits for it.
_CRL_TIMEOUT, _OCSP_TIMEOUT = 60.0, 5.0


@frozen
class RevocationOptions:
    """``--crl``, ``--crl-issuer``, ``--ocsp`` and ``--ocsp-origin``."""

    places: tuple[CrlSource, ...] = ()
    issuers: tuple[x509.Certificate, ...] = ()
    responders: Responders | None = None
    fails_closed: bool = True
    """Whether a peer is refused about whom no responder answers (``--on-stale``)."""

    @classmethod
    def parse(
        cls,
        crls: Sequence[str],
        issuers: Sequence[str],
        ocsp: str | None,
        origins: Sequence[str],
        on_stale: str | None = None,
    ) -> "RevocationOptions":
        """Raises :class:`pki.errors.PkiError`."""
        return cls(
            tuple(map(CrlSource.parse, dict.fromkeys(crls))),
            crl_issuers(issuers),
            Responders.parse(ocsp, origins),
            on_stale in (None, "fail-closed"),
        )

    def watch(
        self, manager: CertificateManager, reactor: Any, log: Logger, memory: Path
    ) -> CrlWatch:
        """Follow the CRLs from the manager's first certificate on, which waits for them."""
        watch = CrlWatch(
            self.places,
            self.issuers,
            Fetcher(reactor, _CRL_TIMEOUT),
            reactor,
            manager.now,
            log,
            manager.revoke,
            lambda: manager.judge.trust.revocations,
            SeenCrlNumbers(memory),
        )
        if self.places:
            watch.memory.recall()
            manager.preparations.append(watch.prepare)
            manager.judge.freshness.doubts.append(watch.doubt)
        return watch

    def inquiry(self, manager: CertificateManager, reactor: Any, log: Logger) -> OcspChecker | None:
        """Whoever asks about each peer, if somebody is to."""
        if self.responders is None:
            return None
        return OcspChecker(
            self.responders,
            Fetcher(reactor, _OCSP_TIMEOUT),
            reactor,
            manager.now,
            log,
            manager.revoke,
            self.fails_closed,
        )
