"""A worker's CA client: asks its parent, which asks the CA under its own certificate."""

from collections.abc import Callable, Mapping

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused
from twisted_mesh.api.body import encoded
from twisted_mesh.api.ca_reach import reach_of
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.runtime.tasks import within
from twisted_mesh.workers.messages import Answered, Asked

#: Seconds that a parent may take longer than its CA.
_LONGER = 5.0


class ParentAway(Refused):
    """The parent has no answer."""

    code = Code.UNREACHABLE


@define(eq=False)
class RelayedClient(CaClient):
    """Asks what :class:`CaClient` asks, by the channel to the parent. A key never goes there: a CSR does."""

    say: Callable[[Asked], object] = field(kw_only=True)
    _asked: dict[int, "Deferred[Answered]"] = field(factory=dict, init=False)
    _last: int = field(default=0, init=False)
    _clocks: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._reach = self._waiting_reach = reach_of(self.address, self.timeout)

    def compared_clocks(self) -> str:
        """As the parent's client last had it."""
        return self._clocks

    def answered(self, answer: Answered) -> None:
        """The parent has an answer; to a question that nobody waits for any more too."""
        waiting = self._asked.pop(answer.number, None)
        if waiting is not None and not waiting.called:
            waiting.callback(answer)

    async def send(
        self,
        method: str,
        path: str,
        body: msgspec.Struct | bytes | None = None,
        more: Mapping[str, str] | None = None,
        *,
        wait: int = 0,
    ) -> bytes:
        """See :meth:`CaClient.send`."""
        self._last = number = self._last + 1
        data = None if body is None else encoded(body)[1]
        key = (more or {}).get("idempotency-key", "")
        waiting: Deferred[Answered] = Deferred()
        self._asked[number] = waiting
        try:
            self.say(Asked(number, method, path, data, key, wait))
            answer = await within(self.reactor, self.timeout + wait + _LONGER, waiting)
        except TimeoutError:
            raise self.too_slow() from None
        finally:
            self._asked.pop(number, None)
        self._clocks = answer.clocks
        if answer.status == 200:
            return answer.body
        if answer.status:
            raise CaRefused(answer.status, answer.problems)
        raise ParentAway(answer.problems)

    def too_slow(self) -> PkiError:
        """The parent is there, or this process would not be."""
        return ParentAway(
            [
                Problem(
                    Code.UNREACHABLE,
                    "the parent of this worker has not answered in time",
                    "look in the log what it is busy with",
                )
            ]
        )
