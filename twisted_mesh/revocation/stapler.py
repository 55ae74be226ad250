"""The stapler: has the CA's word at hand that our own certificate is not revoked, for clients that ask.

It asks before a certificate is used, again at half of the answer's life, and when it hears that the
certificate is revoked. Whatever fails costs the staple once that is stale, and never the service: who
insists on a staple says so, and is told no.
"""

import random
from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pki import renewal
from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem
from pki.keys import key_id
from pki.ocsp.request import Issuer, OcspRequest
from pki.ocsp.response import read_answer
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import subject_of
from twisted_mesh.interfaces import Identity, IRevocationListener
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.tasks import spawn, within
from twisted_mesh.tls.stapling import Staples

#: Seconds that a fresh certificate waits for its staple.
PATIENCE = 2.0
#: Seconds until a CA that does not speak OCSP is asked again: it may be a newer one then.
NOT_THERE = 300.0
#: Least seconds between two questions, however short the answers live.
_LEAST = 1.0
_NOT_FOUND = 404

_SLOW = Problem(Code.UNREACHABLE, "the CA took too long to answer", "look at its log")
_BROKEN = Problem(Code.INTERNAL, "asking for it met a bug", "the log has a traceback: report it")


@implementer(IRevocationListener)
@define(eq=False, repr=False)
class Stapler:
    """Keeps an OCSP answer about our own certificate. Never raises: what goes wrong is logged, once."""

    ask: Callable[[bytes], Awaitable[bytes]]
    """From an OCSPRequest to an OCSPResponse, in DER; raises :class:`PkiError`."""
    staples: Staples
    clock: IReactorTime
    now: Now
    log: Logger
    draw: random.Random = field(factory=random.SystemRandom)
    _certificate: x509.Certificate | None = field(default=None, init=False)
    _issuer: x509.Certificate | None = field(default=None, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)
    _asking: "Deferred[None] | None" = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _is_revoked: bool = field(default=False, init=False)

    async def prepare(self, identity: Identity) -> None:
        """Ask about a certificate before it is used. If that takes too long, it is used without an answer."""
        self.stop()
        leaf = identity.svid.leaf
        issuers = (*identity.svid.intermediates, *identity.bundles.all_roots)
        self._certificate, self._is_revoked = leaf, False
        self._issuer = next((issuer for issuer in issuers if issuer.subject == leaf.issuer), None)
        await self._ask(PATIENCE)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """These are revoked. If we are, what is stapled says so as soon as the CA does."""
        if self._certificate is None or self._issuer is None or self._is_revoked:
            return
        issuer, serial = key_id(self._issuer.public_key()), self._certificate.serial_number
        if any(found.serial == serial and found.issuer == issuer for found in revocations):
            self.stop()
            self._again()

    def retry_now(self) -> None:
        """What kept the CA from answering is over: who waits with a pause waits no more."""
        if self._failures and self._next is not None:
            self.stop()
            self._again()

    def stop(self) -> None:
        """Ask no more."""
        timer, self._next = self._next, None
        if timer is not None and timer.active():
            timer.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _again(self) -> None:
        self._next = None
        self._asking = spawn(self._ask(), "asking for our own OCSP answer", self.log)

    async def _ask(self, patience: float | None = None) -> None:
        """Ask once, and settle when to ask again."""
        leaf, issuer = self._certificate, self._issuer
        if leaf is None or issuer is None:
            return
        try:
            asking = self._refresh(leaf, issuer)
            pause = await (asking if patience is None else within(self.clock, patience, asking))
        except CancelledError:
            raise  # we are being stopped
        except TimeoutError:
            pause = self._put_off((_SLOW,))
        except PkiError as error:
            pause = self._put_off(error.problems, getattr(error, "status", None))
        except ANY_ERROR:
            self.log.failure("asking for our own OCSP answer broke", event="staple-broke")
            pause = self._put_off((_BROKEN,))
        if self._certificate is leaf:
            self._next = self.clock.callLater(pause, self._again)

    async def _refresh(self, leaf: x509.Certificate, issuer: x509.Certificate) -> float:
        """Staple a fresh answer; in how many seconds the next one is due."""
        asked = OcspRequest((Issuer.of(issuer).cert_id(leaf.serial_number),))
        der = await self.ask(asked.to_der())
        now = self.now()
        answer = read_answer(der, leaf, issuer, now=now)
        self.staples.hold(leaf, der, answer.next_update)
        if self._failures:
            self._failures = 0
            self.log.info("Our certificate is stapled again", event="staple-fresh")
        if answer.revocation is not None and not self._is_revoked:
            self._is_revoked = True
            problem = answer.revocation.problem(subject_of(leaf))
            self.log.error(
                "Our own certificate is revoked, and clients that ask are told so: {reasons}",
                event="own-certificate-revoked",
                codes=codes([problem]),
                reasons=reasons([problem]),
            )
        return max(_LEAST, (answer.next_update - now).total_seconds() / 2)

    def _put_off(self, problems: Sequence[Problem], status: int | None = None) -> float:
        """Tell, once; in how many seconds to ask again."""
        is_absent = status == _NOT_FOUND
        tell = self.log.debug if is_absent or self._failures else self.log.warn
        tell(
            "No OCSP answer about our own certificate: {reasons}; clients that demand one refuse us",
            event="staple-failed",
            codes=codes(problems),
            reasons=reasons(problems),
        )
        if is_absent:
            return NOT_THERE
        pause = renewal.backoff(self._failures, self.draw).total_seconds()
        self._failures += 1
        return pause
