"""The identity that an endpoint keeps between two runs, to prove itself by where the CA is asked over TLS.

A join token buys one certificate. After a restart it is spent, so the endpoint shows the CA the
certificate that it bought, and gets a fresh one. It serves by no other: what was revoked while it
was away it hears of from the CA.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from attrs import define, evolve, field

from pki.errors import PkiError, Refused
from pki.keys import MemoryKey
from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.pin import Fingerprint
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import Purpose, X509Svid, load_certificates
from pki.validity import rfc3339
from twisted_mesh.api.refusal import REJOIN
from twisted_mesh.identity.saved_trust import SavedTrust
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.generation import publish
from twisted_mesh.state.memory import Memory
from twisted_mesh.state.private import make_private, read_private, refuse_open
from twisted_mesh.trust.judge import Judge

_log = logger("identity")
_CHAIN, _KEY, _BUNDLE = "svid.pem", "svid_key.pem", "svid_bundle.pem"
_TRUST = "svid_trust.json"


@define(eq=False, repr=False)
class SavedSvid:
    """The files of one endpoint's identity: chain, key and roots, which are replaced as one generation."""

    directory: Path | None
    """None keeps nothing."""
    memory: Memory = field(init=False)
    """Whether it can be written."""
    learnt: SavedTrust = field(factory=SavedTrust, init=False)
    """What has been believed until now, and by what that began."""
    _held: tuple[X509Svid, TrustBundle] | None = field(default=None, init=False, repr=False)
    """What was kept last."""
    _latest: tuple[X509Svid, TrustBundle] | None = field(default=None, init=False, repr=False)
    """What is to be kept, and None once it is or is not to be any more."""
    _must_go: bool = field(default=False, init=False)
    """Whether what is kept is revoked."""

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "identity",
            self.directory,
            "The identity cannot be kept, so that a restart will need a new join token",
            event="identity-not-kept",
            again=self._again,
            log=_log,
        )

    def recall(self, spiffe_id: SpiffeId, ca: Judge, now: datetime) -> X509Svid | None:
        """What was kept, if ``ca`` believes its root and it is still good; else None, and the log says why.

        ``ca`` may have been told of a root that was met in an earlier life, and has been replaced since: then it
        believes what was believed last, from now on. What is known to be revoked of CAs it knows in any case.
        """
        given = _given(ca)
        self.learnt = SavedTrust().leading_from(given)
        if self.directory is None or not os.path.lexists(self.directory):
            return None
        try:
            svid, bundle, trust = _read(self.directory, spiffe_id)
            ca.recall(None, trust.revoked)
            believed = _believed(bundle, trust, ca, given)
            # Its issuer may be revoked, or its root gone, and the CA may take it to be renewed.
            roots = evolve(bundle, roots=(*bundle.roots, *trust.former))
            # It shows that what stands beside it is its own, also once it has ended.
            _demand_good(svid, roots, min(now, svid.validity.not_after))
            ca.recall(believed, ())
            self.learnt, self._held = trust.leading_from(given), (svid, bundle)
            _demand_good(svid, roots, now)
        except PkiError as error:
            _log.warn(
                "The identity kept in {directory} is not used: {error}",
                event="identity-unusable",
                directory=str(self.directory),
                error=str(error),
            )
            return None
        _log.info(
            "The identity kept in {directory} is valid until {not_after}: it shows the CA who we are",
            event="identity-recalled",
            directory=str(self.directory),
            not_after=rfc3339(svid.validity.not_after),
        )
        return svid

    def keep(
        self, svid: X509Svid, bundle: TrustBundle, revocations: RevocationSet | None = None
    ) -> None:
        """Replace what is kept; an endpoint does not stop because it cannot, says so, and tries again.

        ``revocations`` is all that is known of them now.
        """
        _, before = self._held or (svid, bundle)
        trust = self.learnt.followed_by(before, bundle, revocations or RevocationSet())
        if self._held is not None and self._latest is None and self.learnt == trust:
            held, roots = self._held[0], self._held[1].roots
            if held is svid and roots == bundle.roots:
                return
        self.learnt, self._held = trust, (svid, bundle)
        self._latest, self._must_go = (svid, bundle), False
        self._again()

    def _again(self) -> None:
        if self.directory is None:
            return
        if self._must_go:
            self.forget()
        if self._latest is None:
            return
        svid, bundle = self._latest
        files = {
            _CHAIN: (svid.chain_pem(), 0o644),
            _KEY: (svid.key.to_pem(), 0o600),
            _BUNDLE: (bundle.to_pem(), 0o644),
            _TRUST: (self.learnt.to_json(), 0o644),
        }
        with self.memory.writing():
            make_private(self.directory)
            with _alone(self.directory):
                publish(self.directory, files)
            self._latest = None

    def forget(self) -> None:
        """Keep it no longer: it is revoked."""
        self._latest = self._held = None
        if self.directory is None or not os.path.lexists(self.directory):
            return
        self._must_go = True
        with self.memory.writing("A revoked identity is still kept"):
            refuse_open(self.directory)
            shutil.rmtree(self.directory)
            self._must_go = False


def _read(directory: Path, spiffe_id: SpiffeId) -> tuple[X509Svid, TrustBundle, SavedTrust]:
    """What is in ``directory``. Raises :class:`PkiError` where it is not good, or not safe to believe."""
    try:
        refuse_open(directory.parent)
        refuse_open(directory)
        # One generation, whole, also if it is switched while we read.
        home = (directory / "current").resolve()
    except OSError as error:
        raise StateError(f"{directory} cannot be read ({error.strerror})") from None
    chain = load_certificates(read_private(home / _CHAIN), _CHAIN)
    svid = X509Svid.assemble(chain, MemoryKey.from_pem(read_private(home / _KEY, secret=True)))
    if svid.spiffe_id != spiffe_id:
        raise StateError(f"it is that of {svid.spiffe_id} and not of {spiffe_id}")
    bundle = TrustBundle.from_pem(spiffe_id.trust_domain, read_private(home / _BUNDLE))
    trust = SavedTrust()
    if os.path.lexists(home / _TRUST):  # earlier versions kept none
        trust = SavedTrust.parse(read_private(home / _TRUST), _TRUST)
    return svid, bundle, trust


def identity_path(state_dir: Path, who: str) -> Path:
    """Where one endpoint keeps its identity."""
    return state_dir / "identity" / hashlib.sha256(who.encode()).hexdigest()[:16]


def _demand_good(svid: X509Svid, bundle: TrustBundle, now: datetime) -> None:
    """Raises :class:`Refused`."""
    known = BundleSet.of(bundle)
    verdict = judge(svid.chain, known, RevocationSet(), now=now, purpose=Purpose.ANY)
    if not verdict.ok:
        raise Refused(verdict.problems)


def _given(ca: Judge) -> tuple[Fingerprint, ...]:
    """By what the options name the CA's root."""
    if ca.pin is not None:
        return (ca.pin.fingerprint,)
    return tuple(map(Fingerprint.of, ca.trust.bundles.all_roots))


def _believed(
    kept: TrustBundle, trust: SavedTrust, ca: Judge, given: Sequence[Fingerprint]
) -> TrustBundle:
    """What is believed of the CA: what was last, if that began with what the options name, and what else they name.

    Raises :class:`PkiError` where nothing connects the two.
    """
    at = (
        {bundle.trust_domain for bundle in ca.trust.bundles}
        if ca.pin is None
        else {ca.pin.trust_domain}
    )
    if kept.trust_domain not in at:
        raise StateError(f"it is of {kept.trust_domain}, of which the CA is not")
    held = {Fingerprint.of(root): root for root in (*trust.former, *kept.roots)}
    known = {*held, *trust.met}
    gone = {fingerprint for fingerprint, root in held.items() if trust.distrusts(root)}
    if not known.intersection(given):
        raise StateError(f"it is of another root than {', '.join(map(str, given))}")
    if not (known - gone).intersection(given):
        raise StateError(
            f"the root that is to be believed, {given[0]}, was distrusted since: {REJOIN}"
        )
    others = [root for root in ca.trust.bundles.all_roots if Fingerprint.of(root) not in known]
    roots = [root for root in (*kept.roots, *others) if not trust.distrusts(root)]
    return evolve(kept, roots=tuple(roots))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two processes of one identity do not publish at the same moment: each would remove what the other made."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
