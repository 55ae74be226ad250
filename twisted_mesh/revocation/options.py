"""Who else, besides the CA, is heard about revocation: the options that say so, and what comes of them."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography import x509
from twisted.logger import Logger

from twisted_mesh.http.fetch import Fetcher
from twisted_mesh.interfaces import IReactor
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.revocation.crl_source import CrlSource, crl_issuers
from twisted_mesh.revocation.crl_watch import CrlWatch
from twisted_mesh.revocation.ocsp_checker import OcspChecker, Responders
from twisted_mesh.trust.store import TrustStore

#: Seconds for one request: a CRL may be 64 MiB long, and nobody waits for it.
_CRL_TIMEOUT, _OCSP_TIMEOUT = 60.0, 5.0


@frozen
class RevocationOptions:
    """``--crl``, ``--crl-issuer``, ``--ocsp`` and ``--ocsp-origin``."""

    crls: tuple[CrlSource, ...] = ()
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

    def watch(self, trust: TrustStore, reactor: IReactor, log: Logger, numbers: Path) -> CrlWatch:
        """Follow the CRLs, as soon as an identity says whose may come; ``numbers`` is where theirs are kept.

        Its ``prepare`` is one of the preparations of that identity, so that nobody is let in before they
        have been read. Until then, and once one is stale, it is doubted whether trust is fresh.
        """
        watch = CrlWatch(
            self.crls,
            self.issuers,
            Fetcher(reactor, _CRL_TIMEOUT),
            reactor,
            trust.now,
            log,
            trust.revoked,
            lambda: trust.trust.revocations,
            SeenCrlNumbers(numbers),
        )
        if self.crls:
            watch.numbers.recall()
            trust.freshness.doubts.append(watch.doubt)
        return watch

    def checker(self, trust: TrustStore, reactor: IReactor, log: Logger) -> OcspChecker | None:
        """Whoever asks about each peer, if somebody is to."""
        if self.responders is None:
            return None
        return OcspChecker(
            self.responders,
            Fetcher(reactor, _OCSP_TIMEOUT),
            reactor,
            trust.now,
            log,
            trust.revoked,
            self.fails_closed,
        )
