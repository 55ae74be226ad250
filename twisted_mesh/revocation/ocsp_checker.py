"""The OCSP checker: asks a responder about each peer that is good so far, before anybody hears from it.

What a responder says is believed until its next update, and what it says is revoked by everybody
here: open connections too.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import AuthorityInformationAccessOID
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import ANY_ERROR, HOSTILE_INPUT, Malformed, PkiError, Problem, Refused
from pki.ocsp.request import Issuer, OcspRequest
from pki.ocsp.response import MAX_ANSWER_SIZE, read_answer
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import extension, subject_of
from twisted_mesh.http.fetch import Fetcher, HttpUrl
from twisted_mesh.limits.rate_limit import LimitedLog, Rate
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.tasks import spawn, within
from twisted_mesh.runtime.turns import Turns

#: Seconds that a peer waits for an answer about it, at most; its handshake's deadline may leave less.
PATIENCE = 5.0
#: So many questions are under way at once; others wait their turn.
_AT_ONCE = 32
_CACHED = 8192
#: RFC 9654 section 2.1.
_NONCE_SIZE = 32
#: Lines of the log about what could not be found out.
_LOGGED = Rate(1, 10)
#: The problems that a responder's answer is itself. Any other is that there is no answer.
_ANSWERS = {Code.REVOKED, Code.OCSP_UNKNOWN}
_AIA = "aia"


@frozen
class Responders:
    """``--ocsp`` and ``--ocsp-origin``: who is asked about a certificate."""

    url: HttpUrl | None = None
    """The one that is asked about all; None where the certificate says whom to ask."""
    origins: frozenset[str] = frozenset()
    """Where a certificate may send us; nowhere else."""

    @classmethod
    def parse(cls, ocsp: str | None, origins: Iterable[str]) -> "Responders | None":
        """None where nobody is to be asked. Raises :class:`Malformed`."""
        allowed = frozenset(HttpUrl.parse(origin, "--ocsp-origin").origin for origin in origins)
        if ocsp == _AIA:
            if not allowed:
                raise Malformed(
                    "--ocsp aia asks whom a certificate names, so say whom it may name: "
                    "--ocsp-origin http://HOST:PORT, once for each"
                )
            return cls(None, allowed)
        if allowed:
            raise Malformed("--ocsp-origin is for --ocsp aia")
        return None if ocsp is None else cls(HttpUrl.parse(ocsp, "--ocsp"))

    def of(self, certificate: x509.Certificate) -> HttpUrl | None:
        """Whom to ask about it; None where it names nobody that it may name."""
        return self.url or next(filter(self._may_name, _named(certificate)), None)

    def _may_name(self, url: HttpUrl) -> bool:
        return url.origin in self.origins


def _named(certificate: x509.Certificate) -> Iterable[HttpUrl]:
    """The responders in its authority information access."""
    try:
        for access in extension(certificate, x509.AuthorityInformationAccess) or ():
            location = access.access_location
            if access.access_method == AuthorityInformationAccessOID.OCSP and isinstance(
                location, x509.UniformResourceIdentifier
            ):
                try:
                    yield HttpUrl.parse(location.value, "OCSP")
                except Malformed:
                    continue
    except HOSTILE_INPUT:
        return


@define(eq=False, repr=False)
class OcspChecker:
    """Asks about certificates: once about each, however many connections wait for it."""

    responders: Responders
    fetcher: Fetcher
    clock: IReactorTime
    now: Now
    log: Logger
    revoke: Callable[[Sequence[Revocation]], None]
    fails_closed: bool = True
    """Whether a peer is refused of whom nothing can be found out."""
    _good: OrderedDict[bytes, datetime] = field(factory=OrderedDict, init=False)
    """Until when, by fingerprint."""
    _asking: dict[bytes, list["Deferred[Sequence[Problem]]"]] = field(factory=dict, init=False)
    _slots: Turns = field(factory=lambda: Turns(_AT_ONCE), init=False)
    _limited_log: LimitedLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limited_log = LimitedLog(self.log, _LOGGED, self.clock.seconds)

    async def objections(
        self, path: Sequence[x509.Certificate], seconds: float
    ) -> Sequence[Problem]:
        """Why the leaf of a judged path is not let in, found out within so many seconds. Never raises."""
        leaf, issuer, *_ = path
        key = leaf.fingerprint(SHA256())
        until = self._good.get(key)
        if until is not None and self.now() <= until:
            self._good.move_to_end(key)
            return ()
        try:
            problems = await within(
                self.clock, min(PATIENCE, seconds), self._answer(key, leaf, issuer)
            )
        except TimeoutError:
            problems = (_unreachable(leaf, "its responder did not answer in time"),)
        except ANY_ERROR:
            self.log.failure("asking about a certificate broke", event="ocsp-broke")
            problems = (_unreachable(leaf, "asking met a bug"),)
        if not problems or self.fails_closed or problems[0].code in _ANSWERS:
            return problems
        self._log_unanswered(leaf, problems)
        return ()

    def _answer(
        self, key: bytes, leaf: x509.Certificate, issuer: x509.Certificate
    ) -> "Deferred[Sequence[Problem]]":
        """What comes of the question that is under way, or of a new one. Whoever waits may stop to."""
        waiting: Deferred[Sequence[Problem]] = Deferred()
        if key in self._asking:
            self._asking[key].append(waiting)
        else:
            self._asking[key] = [waiting]
            _ = spawn(self._ask(key, leaf, issuer), "asking about a certificate", self.log)
        return waiting

    async def _ask(self, key: bytes, leaf: x509.Certificate, issuer: x509.Certificate) -> None:
        problems: Sequence[Problem] = (_unreachable(leaf, "asking met a bug"),)
        try:
            problems = await self._slots.run(
                Deferred.fromCoroutine, self._ask_now(key, leaf, issuer)
            )
        finally:
            for waiting in self._asking.pop(key, ()):
                if not waiting.called:
                    waiting.callback(problems)

    async def _ask_now(
        self, key: bytes, leaf: x509.Certificate, issuer: x509.Certificate
    ) -> Sequence[Problem]:
        url = self.responders.of(leaf)
        if url is None:
            return (_unreachable(leaf, "it names no responder at an --ocsp-origin"),)
        nonce = os.urandom(_NONCE_SIZE)
        asked = OcspRequest((Issuer.of(issuer).cert_id(leaf.serial_number),), nonce).to_der()
        try:
            der = await self.fetcher.post(url, asked, "application/ocsp-request", MAX_ANSWER_SIZE)
        except PkiError as error:
            return (_unreachable(leaf, f"{url}: {error}"),)
        try:
            answer = read_answer(der, leaf, issuer, now=self.now(), nonce=nonce)
        except (Malformed, Refused) as error:
            return error.problems
        if answer.revocation is not None:
            self.revoke([answer.revocation])
            return (answer.revocation.problem(subject_of(leaf)),)
        self._good[key] = answer.next_update
        if len(self._good) > _CACHED:
            self._good.popitem(last=False)
        return ()

    def _log_unanswered(self, leaf: x509.Certificate, problems: Sequence[Problem]) -> None:
        self._limited_log.warn(
            "{subject} is let in although nobody says whether it is revoked: {reasons}",
            event="ocsp-unanswered",
            subject=subject_of(leaf),
            codes=codes(problems),
            reasons=reasons(problems),
        )


def _unreachable(leaf: x509.Certificate, detail: str) -> Problem:
    return Problem(
        Code.OCSP_UNREACHABLE,
        f"nobody says whether it is revoked: {detail}",
        "look at the responder; --on-stale grace goes on without it",
        "--ocsp",
        subject_of(leaf),
    )
