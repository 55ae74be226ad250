"""HTTP/1.1 of one connection, as it passes the proxy: each request says who has called, and says it once.

One parser reads both directions, and what is passed on is what it has read. A request that could be read in two ways
gets 400, an answer 502, and the connection ends.
"""

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.request import no_longer_accepted
from twisted_mesh.proxy.ending import ending
from twisted_mesh.proxy.forwarded import identity_headers
from twisted_mesh.proxy.http_message import (
    MOST_HEAD,
    BadMessage,
    Body,
    Framing,
    Header,
    RequestHead,
    end_of_head,
    read_request,
    read_response,
    written,
)
from twisted_mesh.proxy.own_answer import HUNG_UP, bad_answer, own_answer, target_is_down
from twisted_mesh.proxy.passed_head import said_head, told_headers
from twisted_mesh.proxy.seam import (
    Caller,
    Close,
    EndCaller,
    EndTarget,
    IFilter,
    PauseCaller,
    ResumeCaller,
    Step,
    ToCaller,
    ToTarget,
)

#: Requests that wait for their answers; what comes behind them is kept.
_MOST_WAITING = 64
#: Once so many bytes of these are kept, the caller is not heard until some are answered.
_MOST_KEPT = MOST_HEAD


def http_filter(caller: Caller) -> IFilter:
    """What reads the connection of ``caller``."""
    return HttpFilter(caller)


@define
class HttpFilter:
    """See :class:`IFilter`."""

    caller: Caller
    _identity: tuple[Header, ...] = field(init=False)
    _ends_soon: Callable[[], bool] = field(init=False)
    _from_caller: bytes = field(default=b"", init=False)
    _from_target: bytes = field(default=b"", init=False)
    _asking: Body | None = field(default=None, init=False)
    """The body of a request that is passed on at present."""
    _answering: Body | None = field(default=None, init=False)
    """The body of an answer."""
    _waiting: deque[RequestHead] = field(factory=deque, init=False)
    _takes_no_more: bool = field(default=False, init=False)
    """Whether the last request has come."""
    _is_changing: bool = field(default=False, init=False)
    """Whether the last request wants another protocol."""
    _is_raw: bool = field(default=False, init=False)
    """Whether that was granted: bytes go through as they come."""
    _is_over: bool = field(default=False, init=False)
    _is_caller_paused: bool = field(default=False, init=False)
    _has_caller_ended: bool = field(default=False, init=False)
    _asked: int = field(default=0, init=False)
    """How many requests it has begun."""
    _is_target_gone: bool = field(default=False, init=False)
    _refusal: tuple[int, bytes] | None = field(default=None, init=False)
    """Of the last request, for when those before it are answered."""

    def __attrs_post_init__(self) -> None:
        self._identity = identity_headers(self.caller)
        self._ends_soon = ending(self.caller)

    # requests

    def from_caller(self, data: bytes) -> Sequence[Step]:
        """See :class:`IFilter`."""
        if self._is_raw:
            return (ToTarget(data),)
        if self._is_over:
            return ()
        self._from_caller += data
        return self._ask()

    def _ask(self) -> Sequence[Step]:
        steps: list[Step] = []
        try:
            self._read_requests(steps)
        except BadMessage as problem:
            why = Problem(Code.MALFORMED, f"the request is no good HTTP/1.1: {problem}", "mend it")
            self._refuse_next(steps, 400, why)
        if self._takes_no_more and self._asking is None:
            self._from_caller = b""  # behind the last request nothing is said
        if self._has_caller_ended and not self._is_over:
            self._end_asking(steps)
        is_enough = len(self._from_caller) >= _MOST_KEPT and self._is_held
        if is_enough is not self._is_caller_paused and not self._is_over:
            self._is_caller_paused = is_enough
            steps.append(PauseCaller() if is_enough else ResumeCaller())
        return steps

    def _read_requests(self, steps: list[Step]) -> None:
        while self._from_caller and not self._is_over:
            if self._asking is not None:
                self._pass_on(steps)
            elif self._is_held or not self._begin_request(steps):
                return

    @property
    def _is_held(self) -> bool:
        """Whether no request is read before an answer has come, or none at all."""
        return self._takes_no_more or self._is_changing or len(self._waiting) >= _MOST_WAITING

    def _pass_on(self, steps: list[Step]) -> None:
        if self._asking is None:
            return
        made, self._from_caller = self._asking.take(self._from_caller)
        if made:
            steps.append(ToTarget(made))
        if self._asking.is_over:
            self._asking = None

    def _begin_request(self, steps: list[Step]) -> bool:
        """Pass the next head on; False where it has not come whole."""
        # One empty line before a request is let pass (RFC 9112 section 2.2).
        start = 2 if self._from_caller.startswith(b"\r\n") else 0
        end = end_of_head(self._from_caller, start)
        if not end:
            return False
        raw, self._from_caller = self._from_caller[start:end], self._from_caller[end:]
        head = read_request(raw)
        if self._is_target_gone:
            self._end_with(steps, 502, HUNG_UP)
            return False
        self._asked += 1
        if problems := self.caller.objections():
            if self._waiting:  # of which the first would take it for its answer
                self._is_over = True
                steps.append(Close("refused"))
            else:
                self._end_with(steps, 403, no_longer_accepted(problems[0]))
            return False
        self._takes_no_more = head.is_last
        self._is_changing = bool(head.upgrade)
        self._waiting.append(head)
        self._asking = Body(head.framing)
        if self._asking.is_over:
            self._asking = None
        first = b"%s %s HTTP/1.%d" % (head.method, head.target, head.version)
        steps.append(ToTarget(written(first, told_headers(head, self._identity))))
        return True

    def caller_ended(self) -> Sequence[Step]:
        """See :class:`IFilter`. It may still listen to what it has asked for."""
        if self._is_raw:
            return (EndTarget(),)
        self._has_caller_ended = True
        steps: list[Step] = []
        if not self._is_over:
            self._end_asking(steps)
        return steps

    def _end_asking(self, steps: list[Step]) -> None:
        """The caller says no more: what it has said whole is still answered."""
        if self._asking is None and self._from_caller and self._is_held:
            return
        self._takes_no_more = True
        if self._asking is not None or self._from_caller:
            self._is_over = True
            steps.append(Close("caller-cut-short"))
        elif not self._waiting:
            self._is_over = True
            steps.append(Close())

    # answers

    def from_target(self, data: bytes) -> Sequence[Step]:
        """See :class:`IFilter`."""
        if self._is_raw:
            return (ToCaller(data),)
        if self._is_over:
            return ()
        if not self._waiting:
            # Whatever was said now would be taken for the answer to what is asked next.
            self._is_over = True
            return (Close("target-broken"),)
        self._from_target += data
        steps: list[Step] = []
        try:
            self._read_answers(steps)
        except BadMessage as problem:
            self._end_with(steps, 502, bad_answer(str(problem)))
        if self._from_caller and not self._is_over:
            steps += self._ask()
        return steps

    def _read_answers(self, steps: list[Step]) -> None:
        while self._from_target and not self._is_over:
            if self._is_raw:
                self._change(steps)
            elif self._answering is not None:
                self._pass_back(steps)
            elif not self._begin_answer(steps):
                return
        if self._is_raw:
            self._change(steps)

    def _begin_answer(self, steps: list[Step]) -> bool:
        """Pass the next head back; False where it has not come whole."""
        if not self._waiting:
            self._is_over = True
            steps.append(Close("target-broken"))
            return False
        end = end_of_head(self._from_target)
        if not end:
            return False
        raw, self._from_target = self._from_target[:end], self._from_target[end:]
        asked = self._waiting[0]
        head = read_response(raw, asked.method)
        if head.status == 101 and not asked.upgrade:
            raise BadMessage("it changes the protocol, and nobody has asked for that")
        if head.status < 200 and head.status != 101:
            if asked.version:
                steps.append(ToCaller(said_head(head, Framing(), is_last=False)))
            return True
        framing = head.framing
        if framing.is_chunked and not asked.version:
            framing = Framing(None)  # which it takes up to the end of the connection
        if self._ends_soon():
            self._takes_no_more = True  # lest another be cut off in the middle
        # Behind this one the target says nothing more: what else was asked is not answered.
        is_end = head.is_last or (framing.length is None and not framing.is_chunked)
        is_one = len(self._waiting) == 1 and self._refusal is None
        is_last = is_end or (self._takes_no_more and is_one)
        if head.status == 101:
            steps.append(ToCaller(said_head(head, framing, is_last=False)))
            self._is_raw = True
            return True
        if asked.upgrade:
            self._is_changing = False
        self._takes_no_more = self._takes_no_more or is_last
        if is_end:
            self._waiting, self._refusal = deque((asked,)), None
        steps.append(ToCaller(said_head(head, framing, is_last=is_last)))
        self._answering = Body(head.framing, keeps_chunks=framing.is_chunked)
        if self._answering.is_over:
            self._end_answer(steps)
        return True

    def _pass_back(self, steps: list[Step]) -> None:
        if self._answering is None:
            return
        made, self._from_target = self._answering.take(self._from_target)
        if made:
            steps.append(ToCaller(made))
        if self._answering.is_over:
            self._end_answer(steps)

    def _end_answer(self, steps: list[Step]) -> None:
        self._answering = None
        self._waiting.popleft()
        if self._waiting or not self._takes_no_more:
            return
        if self._refusal is not None:
            self._end_with(steps, *self._refusal)
        elif self._asking is None:
            self._is_over = True
            steps.append(Close())

    def _change(self, steps: list[Step]) -> None:
        """From now on it is not HTTP: what has come goes through."""
        to_target, to_caller = self._from_caller, self._from_target
        self._from_caller = self._from_target = b""
        steps += [ToCaller(to_caller)] if to_caller else []
        steps += [ToTarget(to_target)] if to_target else []
        if self._is_caller_paused:
            self._is_caller_paused = False
            steps.append(ResumeCaller())

    def target_ended(self) -> Sequence[Step]:
        """See :class:`IFilter`."""
        if self._is_raw:
            return (EndCaller(),)
        if self._is_over:
            return ()
        if self._answering is not None:
            is_whole = (
                self._answering.framing.length is None and not self._answering.framing.is_chunked
            )
            self._is_over = True
            return (Close() if is_whole else Close("target-cut-short"),)
        return self._without_target()

    def target_lost(self) -> Sequence[Step] | None:
        """See :class:`IFilter`."""
        if self._is_raw or self._is_over or self._answering is not None:
            return None
        return self._without_target()

    def _without_target(self) -> Sequence[Step]:
        """It hung up between two answers. Who has asked for nothing yet is told so once it asks."""
        steps: list[Step] = []
        if self._waiting:
            self._end_with(steps, 502, HUNG_UP)
        elif self._asked or self._takes_no_more:
            self._is_over = True
            steps.append(Close())
        else:
            self._is_target_gone = True
        return steps

    # what is answered by the proxy

    def unreachable(self, problem: Problem) -> Sequence[Step]:
        """See :class:`IFilter`. The reason is for the log: it names what callers need not know."""
        steps: list[Step] = []
        self._end_with(steps, 502, target_is_down(problem))
        return steps

    @property
    def half_told(self) -> int:
        """See :class:`IFilter`: a head that is not whole."""
        is_head = bool(self._from_caller) and self._asking is None
        if not is_head or self._is_held or self._is_raw or self._is_over:
            return 0
        return self._asked + 1

    def too_slow(self) -> Sequence[Step]:
        """See :class:`IFilter`."""
        steps: list[Step] = []
        why = Problem(
            Code.MALFORMED,
            "the head of the request did not come whole in time",
            "send it at once",
            "RFC 9110 section 15.5.9",
        )
        self._refuse_next(steps, 408, why)
        return steps

    def finish(self) -> Sequence[Step]:
        """See :class:`IFilter`."""
        if self._is_raw or self._is_over:
            return ()
        self._takes_no_more = True
        if self._waiting or self._asking is not None:
            return ()
        self._is_over = True
        return (Close(),)

    def _refuse_next(self, steps: list[Step], status: int, problem: Problem) -> None:
        """Refuse the request that is being read, once those before it are answered."""
        self._takes_no_more = True
        if self._asking is not None:
            self._asking = None
            if not self._waiting:  # it was answered before it was whole
                self._is_over = True
                steps.append(Close("refused"))
                return
            self._waiting.pop()  # which the target waits for in vain
        body = problem_body(status, problem.code, problem.detail, [problem])
        if self._waiting:
            self._refusal = (status, body)
        else:
            self._end_with(steps, status, body)

    def _end_with(self, steps: list[Step], status: int, body: bytes) -> None:
        """Answer and end; only end where that would be taken for the rest of another answer."""
        self._is_over = True
        if self._answering is not None:
            steps.append(Close("broken"))
            return
        steps += [
            ToCaller(own_answer(status, body)),
            Close("refused" if status < 500 else "target-broken"),
        ]
