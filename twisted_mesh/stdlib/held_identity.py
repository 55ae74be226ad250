"""One identity as programs and their contexts see it: what is shown and believed at a moment, and who was let in."""

import random
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import define, field

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.spki_pin import PinSet
from pki.svid.x509svid import X509Svid
from pki.validity import rfc3339
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.stdlib.beliefs import Standing
from twisted_mesh.stdlib.context import MeshContext, Moment, patterns
from twisted_mesh.stdlib.guard import Guard
from twisted_mesh.stdlib.log import log
from twisted_mesh.stdlib.pinning import Pinning
from twisted_mesh.stdlib.policies import policy_of
from twisted_mesh.stdlib.refusals import NoIdentity
from twisted_mesh.stdlib.source import BlockingSource
from twisted_mesh.stdlib.timetable import Timetable

if TYPE_CHECKING:
    from pki.ct.receipt import SctDemand
    from pki.rules.rule_set import RuleSet

CLOSED = Problem(
    Code.STATE, "the identity was closed", "call join again, and close it when all is done"
)


@define(eq=False)
class HeldIdentity:
    """What is held; :class:`twisted_mesh.stdlib.identity.JoinedIdentity` keeps it fresh."""

    _source: BlockingSource
    _now: Now = wall_clock
    _rotate_at: float = 0.5
    _require_pq: bool = False
    _pins: PinSet = field(factory=PinSet)
    _policy: "RuleSet | None" = None
    """What is asked about peers; about the CA nobody asks."""
    _demand: "SctDemand | None" = None
    """Of how many logs certificates must have receipts."""
    _draw: random.Random = field(factory=random.SystemRandom)
    rotations: int = field(default=0, init=False)
    """How often the certificate was replaced."""
    last_problem: PkiError | None = field(default=None, init=False)
    """Why there is no fresh certificate, or no news of what is revoked; None while there are both."""
    lock: "threading.RLock" = field(factory=threading.RLock, init=False)
    """See :class:`twisted_mesh.stdlib.context.Holder`."""
    _moment: Moment | None = field(default=None, init=False)
    _ends: float = field(default=0.0, init=False)
    """When our certificate does, in seconds since the epoch."""
    _timetable: Timetable = field(init=False)
    _is_closed: bool = field(default=False, init=False)
    _standing: Standing = field(init=False)
    _pinning: Pinning = field(init=False)
    _guards: "weakref.WeakSet[Guard]" = field(factory=weakref.WeakSet, init=False)

    def __attrs_post_init__(self) -> None:
        self._timetable = Timetable(self._now, self._rotate_at, self._draw)
        self._standing = Standing(self._now)
        self._pinning = Pinning(self._source, self._now)

    # what a program uses

    @property
    def spiffe_id(self) -> str:
        """Who we are."""
        return str(self._source.spiffe_id)

    @property
    def svid(self) -> X509Svid:
        """The certificate of the moment, with its key. Raises :class:`NoIdentity`."""
        svid = self.moment().svid
        if svid is None:
            raise AssertionError("joined without a certificate")
        return svid

    @property
    def bundles(self) -> BundleSet:
        """Whose roots are believed now. Raises :class:`NoIdentity`."""
        return self.moment().trust.bundles

    def server_context(self, allow: str | Iterable[str]) -> MeshContext:
        """For a server: it lets in whoever proves an ID that one of the patterns matches. Raises :class:`PkiError`."""
        return MeshContext(
            self,
            patterns("allow", allow),
            serves=True,
            require_pq=self._require_pq,
            policy=policy_of(self._policy, "accept"),
        )

    def client_context(
        self, server_id: str | Iterable[str], *, check_hostname: bool = True
    ) -> MeshContext:
        """For a client: it goes on with a server that proves an ID that ``server_id`` matches, and the name called.

        Without ``check_hostname`` the ID alone counts, whatever name or address it was reached by. Raises
        :class:`PkiError`.
        """
        return MeshContext(
            self,
            patterns("server_id", server_id),
            serves=False,
            check_hostname=check_hostname,
            require_pq=self._require_pq,
            policy=policy_of(self._policy, "connect"),
        )

    # what contexts ask

    def moment(self) -> Moment:
        """What is shown and believed now. Raises :class:`NoIdentity`."""
        moment = self._moment
        if self._is_closed or moment is None:
            raise NoIdentity(CLOSED)
        if self._ends < time.time():
            raise NoIdentity(self._lapsed())
        if self._standing.problem is not None:
            raise NoIdentity(self._standing.problem)
        return moment

    def admit(self, guard: Guard) -> None:
        """A peer was let in: it is judged again whenever what is believed changes."""
        with self.lock:
            self._guards.add(guard)

    def tell_refused(self, problems: Sequence[Problem]) -> None:
        """Say so in the log: whoever serves sees no more than a handshake that failed."""
        log.warning("Peer refused: %s", "; ".join(map(str, problems)))

    def see_pins(self, pins: PinSet, verdict: Verdict, now: datetime) -> None:
        """Say in the log what a peer breaks of pins that are only reported."""
        self._pinning.see(pins, verdict, now)

    # who was let in

    def _review(self) -> None:
        """Judge all again who are connected."""
        for guard in self._open():
            guard.review()

    def _review_late(self) -> None:
        """Judge those again whose certificates have ended meanwhile."""
        now = time.time()
        for guard in self._open():
            if guard.ends < now:
                guard.review()

    def _open(self) -> list[Guard]:
        with self.lock:
            return list(self._guards)

    def _lapsed(self) -> Problem:
        moment = self._moment
        svid = None if moment is None else moment.svid
        why = "" if self.last_problem is None else f", and there is no other: {self.last_problem}"
        return Problem(
            Code.EXPIRED,
            f"our own certificate, that of {self.spiffe_id}, has ended"
            + ("" if svid is None else f" at {rfc3339(svid.validity.not_after)}")
            + why,
            f"restore the connection to the CA at {self._source.ca.address}",
        )
