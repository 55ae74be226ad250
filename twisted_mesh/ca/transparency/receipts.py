"""Receipts: a precertificate is shown to all logs at once, and what they answer goes into the certificate.

Each answer is verified before it counts. Who is away is known after the first certificate that suffers from it: from
then on nothing is begun that could not be finished.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pki.codes import Code
from pki.ct.errors import BadSct, LogAway
from pki.ct.sct import SignedCertificateTimestamp
from pki.errors import ANY_ERROR, PkiError
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.ca.transparency.errors import LogsAway
from twisted_mesh.ca.transparency.standing import LogStanding
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn, within

_log = logger("ca")
#: Seconds for which others are waited for once enough have answered: a certificate with one SCT more outlives a log.
GRACE = 0.25
#: How far a log's clock may be from ours.
SKEW = timedelta(minutes=5)


class WhenAway(StrEnum):
    """What becomes of issuance while too few logs answer."""

    REFUSE = "refuse"
    ISSUE = "issue"


@define(eq=False, repr=False)
class Receipts:
    """What certificates are shown to, and how many SCTs each is to have."""

    logs: tuple[LogStanding, ...]
    quorum: int
    when_away: WhenAway
    timeout: float
    """Seconds that a log may take."""
    clock: IReactorTime
    now: Now
    took: Callable[[float], None] = lambda seconds: None
    """Hears in how many seconds there were enough."""
    issued_without: int = field(default=0, init=False)
    """Certificates that have fewer SCTs than are wanted."""
    last_without: datetime | None = field(default=None, init=False)

    def go_by(self, logs: tuple[LogStanding, ...], quorum: int) -> None:
        """From now on ask these, and want so many."""
        self.logs, self.quorum = logs, quorum

    def askable(self) -> list[LogStanding]:
        """The logs that may be shown a certificate now."""
        at = self.clock.seconds()
        return [log for log in self.logs if log.may_be_asked(at)]

    def demand_logs(self) -> None:
        """See that nothing is begun that could not be finished. Raises :class:`LogsAway`."""
        if self.when_away is WhenAway.REFUSE and len(self.askable()) < self.quorum:
            raise self._away()

    async def obtain(
        self, precertificate: Callable[[], Awaitable[bytes]], above: Sequence[x509.Certificate]
    ) -> tuple[SignedCertificateTimestamp, ...]:
        """The SCTs of a precertificate below ``above``, in the order of the logs. It is made where one is asked.

        There are fewer than are wanted, or none, only where the operator has said so. Raises :class:`LogsAway`, and
        what ``precertificate`` raises.
        """
        began = self.clock.seconds()
        asked = self.askable()
        found: Mapping[LogStanding, SignedCertificateTimestamp] = {}
        if asked and (len(asked) >= self.quorum or self.when_away is WhenAway.ISSUE):
            asking = _Asking(
                min(self.quorum, len(asked)), self.clock, asked, self.when_away is WhenAway.ISSUE
            )
            chain = (x509.load_der_x509_certificate(await precertificate()), *above)
            for log in asked:
                _ = spawn(self._ask(log, chain, asking), "asking a log", _log)
            found = await asking.done
        if len(found) >= self.quorum:
            self.took(self.clock.seconds() - began)
        elif self.when_away is WhenAway.REFUSE:
            raise self._away()
        else:
            self.issued_without += 1
            self.last_without = self.now()
            _log.warn(
                "A certificate is issued with {found} SCTs where {wanted} are wanted (--ct-away issue): {why}. "
                "Endpoints with --require-sct refuse it",
                event="issued-without-scts",
                found=len(found),
                wanted=self.quorum,
                why=self.troubles(),
            )
        return tuple(found[log] for log in self.logs if log in found)

    def troubles(self) -> str:
        """Which logs give no SCTs, and why, in words."""
        told = (f"{log.name}: {log.problem or 'too much is under way'}" for log in self._silent())
        return "; ".join(told) or "every log is asked again"

    def _silent(self) -> list[LogStanding]:
        at = self.clock.seconds()
        return [log for log in self.logs if log.problem is not None or not log.may_be_asked(at)]

    def _away(self) -> LogsAway:
        at = self.clock.seconds()
        waits = sorted(log.seconds_away(at) for log in self.logs)
        wait = waits[min(self.quorum, len(waits)) - 1] if waits else 0.0
        return LogsAway(
            f"a certificate needs SCTs of {self.quorum} of {len(self.logs)} logs, and nothing is issued without "
            f"({self.troubles()}): bring the logs back; it is tried again by itself",
            wait,
        )

    async def _ask(
        self, log: LogStanding, chain: Sequence[x509.Certificate], asking: "_Asking"
    ) -> None:
        is_trial = log.begin()
        try:
            sct = await within(self.clock, self.timeout, log.door.add_pre_chain(chain))
            self._demand_time(sct)
        except TimeoutError:
            late = LogAway(f"it gave no SCT within {self.timeout:g} s")
            self._failed(log, late, is_trial=is_trial)
            asking.failed(log)
        except PkiError as error:
            self._failed(log, error, is_trial=is_trial)
            asking.failed(log)
        except ANY_ERROR:
            # A bug of ours: nobody is to wait for an answer that will not come.
            _log.failure("asking a log broke", event="log-asking-broke")
            self._failed(log, LogAway("asking it broke, by a bug of ours"), is_trial=is_trial)
            asking.failed(log)
        else:
            log.outcomes["sct"] += 1
            if log.answered(is_slow=asking.is_late):
                _tell_back(log)
            asking.answered(log, sct)
        finally:
            log.end(is_trial=is_trial)

    def _demand_time(self, sct: SignedCertificateTimestamp) -> None:
        """Raises :class:`BadSct` for one that endpoints would refuse, or that is of another day."""
        off = sct.at - self.now()
        if abs(off) > SKEW:
            raise BadSct(
                f"its SCT is of {rfc3339(sct.at)}, which is {spoken_duration(abs(off))} "
                f"{'ahead' if off > timedelta() else 'behind'}: compare the two machines' clocks"
            )

    def reachable(self, log: LogStanding) -> None:
        """It answers a question that costs nothing."""
        if log.reachable():
            _tell_back(log)

    def unreachable(self, log: LogStanding, error: PkiError) -> None:
        """It does not answer one."""
        if log.unreachable(error, self.clock.seconds(), self.now()):
            _tell_away(log, error)

    def _failed(self, log: LogStanding, error: PkiError, *, is_trial: bool) -> None:
        log.outcomes[outcome_of(error)] += 1
        if log.failed(error, self.clock.seconds(), self.now(), is_trial=is_trial):
            _tell_away(log, error)


def _tell_away(log: LogStanding, error: PkiError) -> None:
    _log.warn(
        "The log {log} gives no SCTs: {error}. It is asked again by itself",
        event="log-away",
        log=log.name,
        error=str(error),
    )


def _tell_back(log: LogStanding) -> None:
    _log.info("The log {log} gives SCTs again", event="log-back", log=log.name)


#: How asking a log ends.
OUTCOMES = ("sct", "away", "refused", "bad-sct")


def outcome_of(error: PkiError) -> str:
    """One of :data:`OUTCOMES`."""
    return {Code.LOG_AWAY: "away", Code.BAD_SCT: "bad-sct"}.get(error.code, "refused")


@define(eq=False, repr=False)
class _Asking:
    """One certificate's logs, of which so many have to answer."""

    wanted: int
    clock: IReactorTime
    pending: list[LogStanding]
    takes_less: bool
    """Whether what there is will do where not all of these can answer."""
    found: dict[LogStanding, SignedCertificateTimestamp] = field(factory=dict, init=False)
    done: "Deferred[Mapping[LogStanding, SignedCertificateTimestamp]]" = field(
        factory=Deferred, init=False
    )
    _enough_at: float | None = field(default=None, init=False)
    _grace: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.pending = list(self.pending)

    @property
    def is_late(self) -> bool:
        """Whether others have been enough for longer than anybody waits."""
        return self._enough_at is not None and self.clock.seconds() - self._enough_at >= GRACE

    def answered(self, log: LogStanding, sct: SignedCertificateTimestamp) -> None:
        """An SCT that is good."""
        if not self.done.called:
            self.found[log] = sct
        self._look(log)

    def failed(self, log: LogStanding) -> None:
        """There will be none."""
        self._look(log)

    def _look(self, log: LogStanding) -> None:
        self.pending.remove(log)
        if self.done.called:
            return
        possible = len(self.found) + len(self.pending)
        if possible < self.wanted and not self.takes_less:
            self._settle()
            return
        self.wanted = min(self.wanted, possible)
        if len(self.found) < self.wanted:
            return
        if self._enough_at is None:
            self._enough_at = self.clock.seconds()
            self._grace = self.clock.callLater(GRACE, self._settle)
        if all(one.is_slow for one in self.pending):
            self._settle()

    def _settle(self) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self.done.callback(self.found)
