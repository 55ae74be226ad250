"""One identity of this process, for programs on the standard library's ssl: kept fresh by one thread of its own.

The thread blocks in questions to the CA and nowhere else. It renews at a share of each certificate's life, and hears
what is revoked by a question that the CA leaves open. There is no reactor, and no event loop is touched.
"""

import threading
import time
from types import TracebackType
from typing import Self

from attrs import define, evolve, field

from pki.errors import ANY_ERROR, Malformed, PkiError, Refused, printable
from pki.svid.x509svid import X509Svid
from pki.validity import rfc3339
from twisted_mesh.api.trust_news import TrustNews
from twisted_mesh.api.trust_question import Belief
from twisted_mesh.interfaces import Identity
from twisted_mesh.stdlib.beliefs import with_identity, with_news
from twisted_mesh.stdlib.context import Moment
from twisted_mesh.stdlib.forks import tell_no_more, tell_of_forks
from twisted_mesh.stdlib.held_identity import CLOSED, HeldIdentity
from twisted_mesh.stdlib.log import log, passed_on
from twisted_mesh.stdlib.source import passes
from twisted_mesh.trust.trust import Trust

#: Seconds for which the CA may wait for news, and from one question to the next where it does not.
WAIT, POLL = 45, 1.0
#: Seconds within which those ask for another certificate, each at a moment of its own, whose issuer is revoked.
SPREAD = 2.0
#: Seconds between two attempts at most while there is no answer.
LONGEST_PAUSE = 3.0
_MOST_PAGES = 100
#: Seconds that a thread is waited for which has been told to end.
_FAREWELL = 5.0
#: After so many failures in a row the pauses between attempts have reached their longest.
_LONG_TROUBLE = 7


class OwnCertificateRefused(Refused):
    """The CA gave us a certificate that our own peers would refuse."""


@define(eq=False)
class JoinedIdentity(HeldIdentity):
    """What :func:`twisted_mesh.stdlib.join` returns: who this process is in the mesh, until it is closed.

    It survives ``os.fork``: a child goes on under the identity of that moment, with a thread of its own, and renews
    it with a key of its own.
    """

    _missed: int = field(default=0, init=False)
    """Questions for news in a row that got no answer."""
    _wake: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._source.belief = self._belief

    def close(self) -> None:
        """Have no identity any more: no handshake succeeds from now on, and what is open is cut.

        For nobody would hear any more that a peer was revoked. May be said again.
        """
        with self.lock:
            if self._is_closed:
                return
            self._is_closed = True
            thread, self._thread = self._thread, None
        self._wake.set()
        self._source.ca.interrupt()
        for guard in self._open():
            guard.end((CLOSED,), closing=True)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_FAREWELL)
        self._source.ca.hang_up()  # what was kept for the next question
        tell_no_more(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # the first certificate

    def start(self, timeout: float | None) -> None:
        """Obtain the first certificate, and look after it from then on. Raises :class:`PkiError`: why there is none."""
        self._pinning.begin(self._pins)
        if self._demand is not None:
            from twisted_mesh.trust import sct_log

            sct_log.begin(self._demand, passed_on)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                self._renew()
                break
            except PkiError as error:
                pause = self._timetable.fail()
                is_late = deadline is not None and time.monotonic() + pause > deadline
                if is_late or not passes(error):
                    raise
                time.sleep(pause)
        self._begin()
        tell_of_forks(self)

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="twisted-mesh", daemon=True)
        self._thread.start()

    # the thread

    def _run(self) -> None:
        while not self._is_closed:
            try:
                pause = self._step()
            except ANY_ERROR as error:
                log.exception("looking after the identity broke")
                self.last_problem = Malformed(f"{type(error).__name__}: {printable(str(error))}")
                pause = LONGEST_PAUSE
            if pause > 0:
                self._wake.wait(pause)

    def _step(self) -> float:
        """What is to be done now; the seconds until the next."""
        if self._moment is not None:
            with self.lock:
                self._pinning.look(self._moment.trust)
            self._pinning.tell(self._moment.trust)
        now = time.time()
        if self._ends < now:
            problem = self._lapsed()
            for guard in self._open():
                guard.end((problem,))
        if self._timetable.is_time:
            self._rotate()
        until = self._until_next()
        started = time.monotonic()
        wait = 0 if self._missed else max(0, min(WAIT, int(until)))
        try:
            news = self._source.news(wait)
        except PkiError as error:
            if self._is_closed:
                return 0.0
            return min(self._unanswered(error), until)
        is_new = self._believe(news)
        self._review_late()
        if self._missed:
            self._missed = 0
            log.info("What is revoked is heard again from the CA at %s", self._source.ca.address)
            if self._timetable.failures:
                self._timetable.retry_at = 0.0  # who has no certificate does not wait any longer
                return 0.0
            self.last_problem = None
        took = time.monotonic() - started
        if is_new or news.more or (wait and took >= wait / 2):
            return 0.0
        return min(POLL * self._draw.uniform(0.8, 1.0), self._until_next())

    def _until_next(self) -> float:
        """Seconds until something has to be done: the renewal, or the end of a certificate."""
        moments = [guard.ends for guard in self._open()]
        if self._ends > time.time():
            moments.append(self._ends)
        now = time.time()
        until = min((moment - now for moment in moments), default=float(WAIT))
        return max(0.01, min(until, self._timetable.seconds_left))

    def _rotate(self) -> None:
        try:
            self._renew()
        except PkiError as error:
            if self._is_closed:
                return
            is_other = str(self.last_problem) != str(error)
            self.last_problem = error
            self._timetable.fail()
            # The same trouble is logged again only once the pauses are long.
            if is_other or self._timetable.failures > _LONG_TROUBLE:
                log.warning("The certificate of %s could not be renewed: %s", self.spiffe_id, error)
            return
        self.rotations += 1
        log.info(
            "The certificate of %s was renewed: it is valid until %s",
            self.spiffe_id,
            rfc3339(self.svid.validity.not_after),
        )

    def _renew(self) -> None:
        """Another certificate, judged as a peer would, and all that is revoked. All of it, or nothing."""
        identity = self._source.obtain()
        before = Trust(pins=self._pins, demand=self._demand)
        if self._moment is not None:
            before = self._moment.trust
        trust = with_identity(before, identity)
        self._source.ca.believe(trust)
        for _ in range(_MOST_PAGES):
            news = self._source.news()
            trust = with_news(trust, news, self._now)
            self._standing.hear(news)
            if not news.more:
                break
        svid, _ = self._standing.path.of(identity.svid, trust)
        verdict = trust.judge_ours(svid, self._now())
        if not verdict.ok:
            raise OwnCertificateRefused(verdict.problems)
        self._adopt(evolve(identity, svid=svid), trust)

    def _adopt(self, identity: Identity, trust: Trust) -> None:
        svid = self._standing.served(identity.svid, trust)
        self._source.serve(svid, trust)
        with self.lock:
            self._moment = Moment(svid, trust)
            self._ends = svid.validity.not_after.timestamp()
            self._timetable.renewed(identity.issued_at, svid.validity.not_after)
        self.last_problem = None
        self._review()

    def _believe(self, news: TrustNews) -> bool:
        """Believe what the CA says now; whether anything in it was new."""
        moment = self._moment
        if moment is None:
            return False
        trust = with_news(moment.trust, news, self._now)
        self._standing.hear(news)
        svid, now = moment.svid, self._now()
        if svid is not None:
            svid = self._serve_on(svid, trust)
        if trust is moment.trust and svid is moment.svid:
            return False
        if svid is not None:
            self._source.serve(svid, trust)
        with self.lock:
            self._moment = Moment(svid, trust)
            if (
                trust.bundles != moment.trust.bundles
                and svid is not None
                and not trust.judge_ours(svid, now).ok
            ):
                # Whoever has heard of the same roots refuses us until there is another.
                self._timetable.bring_forward()
        self._review()
        return True

    def _serve_on(self, svid: X509Svid, trust: Trust) -> X509Svid:
        """Our certificate by the path that is told; by none once that is revoked, and then there is another soon."""
        was_served = self._standing.problem is None
        served = self._standing.served(svid, trust)
        if self._standing.problem is not None and was_served:
            log.error("Our certificate is shown no more: %s", self._standing.problem)
            self._timetable.bring_forward()
            self._timetable.retry_at = time.monotonic() + self._draw.uniform(0, SPREAD)
        return served

    def _belief(self) -> Belief | None:
        """What the CA is told of us."""
        moment = self._moment
        return None if moment is None else self._standing.belief(moment.svid, moment.trust)

    def _unanswered(self, error: PkiError) -> float:
        self._missed += 1
        if self._missed == 3:
            log.warning("What is revoked is not heard from the CA: %s", error)
        self.last_problem = error
        return min(LONGEST_PAUSE, POLL * 2.0 ** min(self._missed - 1, 8)) * self._draw.uniform(
            0.5, 1
        )

    # forks

    def before_fork(self) -> None:
        """Let nobody be in the middle of anything."""
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Go on by ourselves: the thread is the parent's, and so are its locks and its connection to the CA."""
        self.lock = threading.RLock()
        self._wake = threading.Event()
        self._thread = None
        for guard in list(self._guards):
            guard.inherit()
        if self._is_closed:
            return
        self._source.renew_after_fork()
        self._pinning.renew_after_fork()
        if self._moment is not None:
            # Another object, so that nobody uses what was made under the parent's locks.
            self._moment = Moment(self._moment.svid, self._moment.trust)
        self._timetable.spread()
        self._begin()
