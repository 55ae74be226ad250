"""Sources: where a service's own identity comes from."""

import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from attrs import define, evolve, field, frozen
from cryptography import x509
from twisted.logger import Logger
from zope.interface import implementer

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet
from pki.svid.certificate import date_problems
from pki.svid.names import IPAddress
from pki.svid.x509svid import X509Svid
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.refusal import CaRefused, about_its_root
from twisted_mesh.api.trust_question import Belief, TrustQuestion
from twisted_mesh.evidence.interface import AttestationData
from twisted_mesh.identity.own_source import new_key
from twisted_mesh.identity.proving import Proving, wants_evidence
from twisted_mesh.identity.saved_svid import SavedSvid
from twisted_mesh.interfaces import Identity, ISource, TrustUpdate
from twisted_mesh.runtime.clock import Now
from twisted_mesh.tls.alerts import OwnChainRefused, RefusedByPeer
from twisted_mesh.trust.log_witness import LogWitness
from twisted_mesh.trust.trust import Trust

#: The statuses by which the CA says that a CSR breaks a rule, or bought a certificate that is over.
_UNPROCESSABLE = 422
_UNAUTHORIZED = 401
_REJOIN = "start with a new join token, which mesh-ctl token create prints; if it is fresh, compare the clocks"
_HOPELESS = (_UNPROCESSABLE, 409)
#: Those by which it says that a certificate proves nothing to it any more, and what it says of one inside TLS.
_NO_PROOF = (401, 403)
_OURS_REFUSED = {Code.REVOKED, Code.EXPIRED, Code.UNKNOWN_AUTHORITY, Code.BAD_CERTIFICATE}


@frozen
class _Question:
    """What the CA is being asked, until it has answered."""

    key: MemoryKey = field(repr=False)
    csr: bytes
    idempotency_key: str = field(factory=lambda: secrets.token_hex(16))


@implementer(ISource)
@define(eq=False, repr=False)
class CaSource:
    """An identity from a CA by its API. The key is made here and never leaves."""

    client: CaClient
    spiffe_id: SpiffeId
    now: Now
    log: Logger
    dns_names: Sequence[str] = ()
    ip_addresses: Sequence[IPAddress] = ()
    ttl: timedelta | None = None
    witness: LogWitness = field(factory=lambda: LogWitness(None))
    """Of the CA's audit log."""
    token: JoinToken | None = field(default=None, repr=False)
    """What buys the first certificate; forgotten once there is one."""
    kept: SavedSvid = field(factory=lambda: SavedSvid(None))
    """For the next life."""
    belief: Callable[[], Belief | None] = lambda: None
    """What is believed and served now, to be told to the CA."""
    proving: Proving | None = None
    """What shows the CA evidence of the platform, in place of a token."""
    _asking: "_Question | None" = field(default=None, init=False, repr=False)
    _svid: X509Svid | None = field(default=None, init=False)
    _store: str = field(default="", init=False)
    _position: int = field(default=0, init=False)
    _edition: str = field(default="", init=False)

    @property
    def where(self) -> str:
        """The address of the CA."""
        return str(self.client.address)

    def recall(self) -> None:
        """Take up the identity of an earlier life, to show it to the CA until there is a fresh one."""
        if self.client.security is not None:
            judge = self.client.security.judge
            self._svid = self.kept.recall(self.spiffe_id, judge, self.now())

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        """A fresh key and its certificate. A question that got no answer is asked again as it was, key and all."""
        if self._asking is None:
            self._asking = await self._ask_with_new_key(algorithm)
        asking = self._asking
        issued_at = self.now()
        try:
            chain = await self._certified(asking)
            bundle = await self.client.bundle(self.spiffe_id.trust_domain)
            svid = X509Svid.assemble(chain, asking.key)
        except PkiError as error:
            if self._is_hopeless(error):
                self._asking = None  # with this key and CSR it would never be otherwise
            raise about_its_root(error) from None
        self._asking, self._svid, self.token = None, svid, None
        self._present()
        self.kept.keep(svid, bundle)
        clocks = self.client.compared_clocks()
        return Identity(svid, BundleSet.of(bundle), issued_at, clocks, is_of_all=False)

    def serve(self, svid: X509Svid, trust: Trust) -> None:
        """That is served and believed now: the CA is shown it too, and it is kept for the next life."""
        if svid is not self._svid:
            self._svid = svid
            self._present()
        bundle = trust.bundles.get(self.spiffe_id.trust_domain)
        if bundle is not None and bundle.roots:
            self.kept.keep(svid, bundle, trust.revocations)

    async def _certified(self, asking: _Question) -> Sequence[x509.Certificate]:
        """The certificate, by the proof that we have: our SVID, else the join token or evidence of the platform."""
        if self._present():
            try:
                return await self._sign(asking)
            except PkiError as error:
                self._heed(error)
                if self.proving is not None and wants_evidence(error):
                    return await self._attested(asking, self.proving)
                if (self.token is None and self.proving is None) or not _disowns(error):
                    raise
                self.log.warn(
                    "The CA does not take our certificate any more ({error}): joining anew, by {proof}",
                    event="joining-anew",
                    error=str(error),
                    proof="the token" if self.proving is None else self.proving.prover.where,
                )
                self._svid = None
                self._present()
        try:
            if self.proving is not None:
                return await self._attested(asking, self.proving)
            return await self._sign(asking, self.token)
        except CaRefused as error:
            raise self._because_of_ours(error) from None

    async def _attested(self, asking: _Question, proving: Proving) -> Sequence[x509.Certificate]:
        """The same by fresh evidence."""
        return await proving.shown(
            self.client,
            asking.key.public_key,
            self.spiffe_id.trust_domain,
            partial(self._sign, asking, None),
            self.log,
        )

    def _because_of_ours(self, error: CaRefused) -> PkiError:
        """``error``, and first that we have a certificate and could not show it, where that is so."""
        if self._svid is None or self.client.security is None or error.status != _UNAUTHORIZED:
            return error
        about = f"our own certificate, that of {self.spiffe_id}, is not shown to the CA"
        clocks = self.client.compared_clocks()
        told = [
            evolve(
                problem,
                detail="; ".join(filter(None, (f"{about}: {problem.detail}", clocks))),
                remedy=_REJOIN if problem.code == Code.EXPIRED else problem.remedy,
            )
            for problem in date_problems(self._svid.leaf, self.now())
        ]
        return CaRefused(error.status, (*told, *error.problems))

    async def _sign(
        self,
        asking: _Question,
        token: JoinToken | None = None,
        evidence: AttestationData | None = None,
    ) -> Sequence[x509.Certificate]:
        return await self.client.sign(
            asking.csr, self.spiffe_id, self.ttl, asking.idempotency_key, token, evidence
        )

    def _is_hopeless(self, error: PkiError) -> bool:
        status = getattr(error, "status", None)
        if self.token is not None and status != _UNPROCESSABLE:
            return False  # it may be spent on this very CSR, and buys nothing with another
        return isinstance(error, Malformed) or status in _HOPELESS

    async def _ask_with_new_key(self, algorithm: KeyAlgorithm) -> _Question:
        """A key for the next certificate, and its CSR."""
        self.log.info(
            "Generating service key pair ({algorithm})...",
            event="key-generated",
            algorithm=algorithm.label,
        )
        key = await new_key(algorithm)
        self.log.info(
            "Creating CSR for identity: {spiffe_id}",
            event="csr-created",
            spiffe_id=str(self.spiffe_id),
        )
        csr = build_csr(key, self.spiffe_id, self.dns_names, self.ip_addresses)
        self.log.info(
            "Requesting certificate from CA at {ca}...",
            event="certificate-requested",
            ca=f"{self.where}/api/v1/sign" if self.client.address.host else self.where,
        )
        return _Question(key, csr)

    def _present(self) -> bool:
        """Prove ourselves to the CA by the SVID that we have, as long as it is valid; whether there is one."""
        valid = self._svid is not None and self._svid.validity.contains(self.now())
        self.client.present(self._svid if valid else None)
        return valid

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        """What was revoked since the position that we hold; see :class:`ISource`."""
        shown, log_size = self._svid, self.witness.size
        try:
            told = await self.client.trust(
                TrustQuestion(
                    self._position, self._store, self._edition, log_size, wait, self.belief()
                )
            )
        except PkiError as error:
            if shown is self._svid:
                self._heed(error)
            raise about_its_root(error) from None
        has_moved = (told.store, told.position) != (self._store, self._position)
        self._store, self._position, self._edition = told.store, told.position, told.edition
        # Two questions may be under way: a proof leads on from what was seen when it was asked for.
        if told.log is not None and self.witness.size == log_size:
            self.witness.compare(told.log, self.now().timestamp())
        return TrustUpdate(
            told.revocations,
            told.more and has_moved,
            told.waited,
            told.bundles,
            told.issuers,
            told.withdrawn_pins,
            told.withdrawn_logs,
        )

    def renewed(self) -> None:
        """Close the connection of the last identity."""
        self.client.hang_up()

    def _heed(self, error: PkiError) -> None:
        """What is revoked is not kept for the next life."""
        if any(problem.code == Code.REVOKED for problem in error.problems):
            self.kept.forget()


def _disowns(error: PkiError) -> bool:
    """Whether the CA says that the certificate that we showed is no proof to it."""
    if isinstance(error, CaRefused):
        return error.status in _NO_PROOF
    if isinstance(error, OwnChainRefused):
        return True
    return isinstance(error, RefusedByPeer) and error.problems[0].code in _OURS_REFUSED
