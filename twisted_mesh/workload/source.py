"""An identity from a Workload API, SPIRE's or our own agent's, in place of a CA of ours.

One stream stands: each of its answers is everything that this process may have at that moment. A new certificate is
taken into use at once, bundles and CRLs count at once, and what the Workload API takes away is given up. While the
stream cannot be had, what is known goes on, as it does where a CA is away.
"""

import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem, Refused, printable
from pki.keys import KeyAlgorithm
from pki.svid.revocation_set import Revocation
from twisted_mesh.api.ca_user import CaUser, ForeignCa
from twisted_mesh.api.local_ca import LocalCaEndpoint
from twisted_mesh.api.messages import PublishedCrls
from twisted_mesh.grpc.client import CLIENT_LIMITS, NOT_MADE, GrpcChannel
from twisted_mesh.grpc.connection import Limits
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.identity.provider import IProvider
from twisted_mesh.interfaces import Identity, IReactor, TrustUpdate
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.reach import closed_on_the_way, why_no_socket
from twisted_mesh.runtime.tasks import Defer, sleep, spawn
from twisted_mesh.workload.address import WorkloadAddress
from twisted_mesh.workload.chosen import Choice, Chosen
from twisted_mesh.workload.context import Context, read_context
from twisted_mesh.workload.messages import FETCH_X509_SVID, SECURITY_HEADER, X509SvidRequest
from twisted_mesh.workload.source_crls import SourceCrls

#: Seconds until it is told that there was no answer yet. The stream is waited on all the same.
PATIENCE = 10.0
#: Seconds between two attempts: at first, and at most. A local socket costs little to try.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
#: The same where the Workload API said that there is nothing for us, or that we asked amiss: an entry may come.
DENIED_PAUSE, LONGEST_DENIED_PAUSE = 1.0, 10.0
#: Whoever may be an agent, where nobody is named.
AGENT = CaUser(None, "the agent", "another --source")
_START = "start the agent that is to listen there, or name its socket with --source workload:unix:///PATH"
_DENIALS = frozenset(
    {
        Status.PERMISSION_DENIED,
        Status.UNAUTHENTICATED,
        Status.INVALID_ARGUMENT,
        Status.UNIMPLEMENTED,
    }
)
#: Of those, what says that there is nothing for us any more, so that what there was is given up.
_OVER = frozenset({Status.PERMISSION_DENIED})


class WorkloadApiAway(Refused):
    """There is no answer of a Workload API."""

    code = Code.UNREACHABLE


class WorkloadApiRefused(Refused):
    """The Workload API has nothing for this process, or does not understand us."""

    code = Code.NOT_AUTHORIZED

    def __init__(self, where: str, error: GrpcError) -> None:
        self.is_final = error.status in _OVER
        said = f"{where} says: {error}"
        cure = "have an entry made for this process; what its agent saw of it is in that text, or in its log"
        if not self.is_final:
            cure = "see that a Workload API of SPIFFE is there"
        super().__init__([Problem(Code.NOT_AUTHORIZED, said, cure)])


@implementer(IProvider)
@define(eq=False)
class WorkloadSource:
    """Follows one Workload API from the first :meth:`obtain` to :meth:`close`."""

    reactor: IReactor
    address: WorkloadAddress
    choose: Choice = field(factory=Chosen)
    now: Now = field(kw_only=True)
    log: Logger = field(kw_only=True)
    issuers: Sequence[x509.Certificate] = field(default=(), kw_only=True)
    """Of CRLs, as ``--crl-issuer`` gives them."""
    user: CaUser = field(factory=lambda: AGENT, kw_only=True)
    """Whose the agent may be: the socket is all that proves it."""
    limits: Limits = field(default=CLIENT_LIMITS, kw_only=True)
    defer: Defer = field(default=deferToThread, kw_only=True)
    draw: random.Random = field(factory=random.SystemRandom, kw_only=True)
    on_fresh: Callable[[], object] = field(default=lambda: None, init=False)
    """Called when there is another certificate than the one in use, and when a trouble is over."""
    on_loss: Callable[[PkiError], object] = field(default=lambda error: None, init=False)
    """Called when the certificate in use is to be used no more."""
    crl_lists: SourceCrls = field(init=False)
    _endpoint: "_Endpoint" = field(init=False)
    _channel: GrpcChannel = field(init=False)
    _following: "Deferred[None] | None" = field(default=None, init=False)
    _is_closed: bool = field(default=False, init=False)
    _latest: Context | None = field(default=None, init=False)
    _in_use: Context | None = field(default=None, init=False)
    _handed: Context | None = field(default=None, init=False)
    _problem: PkiError | None = field(default=None, init=False)
    """Why nothing new can be had now; None while the stream is good."""
    _told: str = field(default="", init=False)
    """The last trouble that was logged."""
    _news: list[Revocation] = field(factory=list, init=False)
    """Revoked, and not given to anybody yet."""
    _is_news: bool = field(default=False, init=False)
    """Whether whom to believe has changed since somebody asked."""
    _waiting: list["Deferred[None]"] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.crl_lists = SourceCrls(self.now, self.log, self.where, self.issuers, self.defer)
        self._endpoint = _Endpoint(
            LocalCaEndpoint(self.reactor, Path(self.address.path), self.user, PATIENCE)
        )
        self._channel = GrpcChannel(self.reactor, self._endpoint, limits=self.limits)

    @property
    def where(self) -> str:
        """The address of the Workload API."""
        return str(self.address)

    # What the manager and the feed ask.

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        """The certificate of the moment, with a key that was made over there: ``algorithm`` is not for us to say.

        Where that is in use already, it waits for another. Raises :class:`PkiError`: why none can come now.
        """
        self._follow()
        while self._latest is None or self._latest is self._in_use:
            if self._problem is not None:
                raise self._problem
            await self._event()
        self._handed = self._latest
        return Identity(self._latest.svid, self._latest.bundles, self.now())

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        """Whom to believe, at once; with ``wait`` once it has changed. Raises :class:`PkiError` without a stream."""
        self._follow()
        started = self.reactor.seconds()
        while self._problem is None and (self._latest is None or (wait and not self._is_news)):
            left = wait - (self.reactor.seconds() - started)
            if self._latest is not None and left <= 0:
                break
            await self._event(left if self._latest is not None else None)
        if self._problem is not None:
            raise self._problem
        if self._latest is None:
            raise AssertionError("there is an answer, or a problem")
        news, self._news, self._is_news = self._news, [], False
        # As long as the stream stands, what came by it is the latest.
        waited = self.reactor.seconds() - started
        return TrustUpdate(news, False, waited, self._latest.bundles)

    def renewed(self) -> None:
        """What was handed out last is in use."""
        self._in_use = self._handed

    async def crls(self) -> PublishedCrls:
        """Those that came along; SPIRE sends none."""
        return self.crl_lists.published()

    async def learn(self, issuers: Sequence[x509.Certificate]) -> Sequence[Revocation]:
        """What is known to be revoked once those issuers, judged above a peer, are known."""
        return await self.crl_lists.learn(issuers)

    def doubt(self) -> Problem | None:
        """Why it may not be known who is revoked."""
        return self.crl_lists.doubt()

    def too_slow(self) -> PkiError:
        """What is to be said where nobody waits for an answer any longer."""
        return self._problem or _away(
            f"{self.where} takes connections, and has not answered",
            "look in the log of the agent there what it is busy with",
        )

    def compared_clocks(self) -> str:
        """Nothing: a Workload API does not tell its time."""
        return ""

    def close(self) -> None:
        """Ask no more. May be said again."""
        self._is_closed = True
        if self._following is not None and not self._following.called:
            self._following.cancel()
        self._channel.close()

    # The stream.

    def _follow(self) -> None:
        if self._following is None and not self._is_closed:
            self._following = spawn(self._run(), "following the Workload API", self.log)

    async def _run(self) -> None:
        failures = 0
        while not self._is_closed:
            before = self._latest
            try:
                error = await self._one_stream()
            except CancelledError:
                return
            except ANY_ERROR as broken:
                self.log.failure("following the Workload API broke", event="workload-api-broke")
                error = _away(
                    f"{type(broken).__name__}: {printable(str(broken), 200)}", "report it"
                )
            failures = 0 if self._latest is not before else failures + 1
            self._fail(error)
            await sleep(self.reactor, self._pause(error, failures))

    async def _one_stream(self) -> PkiError:
        """Take answers until there are no more; why there are none."""
        late = self.reactor.callLater(PATIENCE, self._late)
        try:
            call = await self._channel.stream(
                FETCH_X509_SVID, X509SvidRequest().encode(), metadata=[SECURITY_HEADER]
            )
            try:
                while (message := await call.receive()) is not None:
                    if late.active():
                        late.cancel()
                    await self._take(message)
            finally:
                call.cancel()
        except GrpcError as error:
            return self._understood(error)
        finally:
            if late.active():
                late.cancel()
        return _away(f"{self.where} has ended the stream", "it is asked again by itself")

    def _late(self) -> None:
        """There is no answer yet, and there may be one still."""
        if self._problem is None:
            self._fail(
                _away(
                    f"{self.where} takes connections, and has not answered within {PATIENCE:g} s",
                    "look in the log of the agent there what it is busy with",
                )
            )

    async def _take(self, message: bytes) -> None:
        before = self._latest
        try:
            context = read_context(message, self.choose)
        except PkiError as error:
            if before is None or error.problems[0].code == Code.NOT_AUTHORIZED:
                self._lose(error)
            self._fail(error)
            return
        for problem in context.problems:
            self.log.warn(
                "A bundle from the Workload API at {place} is passed over: {reasons}",
                event="bundle-refused",
                place=self.where,
                codes=codes(problem.problems),
                reasons=reasons(problem.problems),
            )
        news = await self.crl_lists.read(
            context.crls, context.svid.intermediates, context.bundles.all_roots
        )
        if before is not None and before.svid.chain == context.svid.chain:
            # Nothing else has changed about it: what is in use stays so.
            is_used, is_handed = before is self._in_use, before is self._handed
            self._latest = context
            self._in_use = context if is_used else self._in_use
            self._handed = context if is_handed else self._handed
        else:
            self._latest = context
        self._news += news
        self._is_news = True
        had_trouble, self._problem = self._problem is not None, None
        if had_trouble and self._told:
            self._told = ""
            self.log.info(
                "The Workload API at {place} answers again",
                event="workload-api-answers",
                place=self.where,
            )
        self._wake()
        if had_trouble or self._latest is not self._in_use:
            self.on_fresh()

    def _fail(self, error: PkiError) -> None:
        self._problem = error
        if isinstance(error, WorkloadApiRefused) and error.is_final:
            self._lose(error)
        if self._latest is not None and str(error) != self._told:
            # Before there is an identity whoever waits for one is told, and tells it.
            self._told = str(error)
            self.log.warn(
                "The Workload API at {place} gives nothing new: {reasons}",
                event="workload-api-away",
                place=self.where,
                codes=codes(error.problems),
                reasons=reasons(error.problems),
            )
        self._wake()

    def _lose(self, error: PkiError) -> None:
        """What there was is not ours any more."""
        had, self._latest, self._in_use, self._handed = self._latest, None, None, None
        if had is not None:
            self.on_loss(error)

    def _understood(self, error: GrpcError) -> PkiError:
        if error.status in _DENIALS:
            return WorkloadApiRefused(self.where, error)
        if error.text.startswith(NOT_MADE):
            path, why_not = Path(self.address.path), self._endpoint.failed
            if isinstance(why_not, ForeignCa):
                return why_not
            number = getattr(why_not, "osError", None) or errno.ENOENT
            if number == errno.EACCES:
                blocking = closed_on_the_way(path)
                return _away(
                    f"this user may not go through the directory {blocking} to {self.where}"
                    if blocking
                    else f"this user may not use the socket {self.where}",
                    "have the agent's socket opened for it",
                )
            if (why := why_no_socket(path, number, _START)) is not None:
                return _away(f"{self.where}: {why[0]}", why[1])
        return _away(f"{self.where}: {error}", "it is asked again by itself; its log says more")

    def _pause(self, error: PkiError, failures: int) -> float:
        refused = isinstance(error, WorkloadApiRefused)
        first, longest = (
            (DENIED_PAUSE, LONGEST_DENIED_PAUSE) if refused else (FIRST_PAUSE, LONGEST_PAUSE)
        )
        pause = min(longest, first * 2.0 ** min(max(0, failures - 1), 16))
        return pause * self.draw.uniform(0.8, 1.0)

    # Who waits.

    async def _event(self, seconds: float | None = None) -> None:
        """The next time that something happens, or so many seconds."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        timer = None
        if seconds is not None:
            timer = self.reactor.callLater(max(0.0, seconds), _go_on, waiting)
        try:
            await waiting
        finally:
            if timer is not None and timer.active():
                timer.cancel()
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            _go_on(deferred)


def _go_on(waiting: "Deferred[None]") -> None:
    if not waiting.called:
        waiting.callback(None)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _Endpoint:
    """Remembers why the last attempt failed, which a gRPC status does not tell."""

    endpoint: IStreamClientEndpoint
    failed: BaseException | None = field(default=None, init=False)

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        connecting: Deferred[IProtocol] = self.endpoint.connect(factory)
        return connecting.addErrback(self._keep)

    def _keep(self, failure: Failure) -> Failure:
        self.failed = failure.value
        return failure


def _away(detail: str, remedy: str) -> WorkloadApiAway:
    return WorkloadApiAway([Problem(Code.UNREACHABLE, detail, remedy)])
