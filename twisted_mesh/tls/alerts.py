"""What a broken TLS connection means: OpenSSL's errors and the peer's alerts as problems with a remedy."""

from collections.abc import Iterator, Sequence

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoProtocol,
    TimeoutError,
)
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused, printable
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.tls.openssl_errors import ALERTS, alert_in, from_openssl, reasons_in

_DATES = {Code.EXPIRED, Code.NOT_YET_VALID}


class HungUp(ConnectionLost):
    """The peer has hung up without TLS's goodbye"""


class PeerRefused(Refused):
    """We refused the peer, for every reason in ``problems``."""


class RefusedByPeer(PkiError):
    """The other side refused us, or the connection broke; :attr:`problem` says what is known."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem).partition(": ")[2])
        self._problem = problem

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The one that is known."""
        return (self._problem,)


class OwnChainRefused(RefusedByPeer):
    """The certificate that we show is to blame, as we can see ourselves: anybody would refuse it."""


def with_clocks(error: PkiError, compared: str) -> PkiError:
    """``error`` with what is known of another clock, where it is about dates."""
    if not compared or not any(problem.code in _DATES for problem in error.problems):
        return error
    problems = [
        evolve(problem, detail=f"{problem.detail}; {compared}")
        if problem.code in _DATES
        else problem
        for problem in error.problems
    ]
    if isinstance(error, RefusedByPeer):
        return type(error)(problems[0])
    return type(error)(problems) if isinstance(error, Refused) else error


class Unreachable(RefusedByPeer):
    """There was nobody to talk to, or they did not answer in time."""


def problem_of(error: BaseException | Failure, reach: Reach | None = None) -> Problem:
    """What a connection's end means; ``reach`` knows where it led, and how far. Never raises."""
    if reach is not None and (known := _of_attempt(error, reach)) is not None:
        return known
    for cause in _causes(error):
        if isinstance(cause, SSL.Error):
            return from_openssl(cause)
        if isinstance(cause, PkiError):
            return cause.problems[0]
        if isinstance(cause, ConnectionRefusedError):
            return Problem(
                Code.UNREACHABLE,
                "nobody listens there",
                "start it, or check the address and the port",
            )
        if isinstance(cause, DNSLookupError):
            return Problem(Code.UNREACHABLE, "the host name is unknown", "check the address")
        if isinstance(cause, TimeoutError):
            return Problem(
                Code.UNREACHABLE, "it did not answer in time", "check the address and the network"
            )
        if isinstance(cause, ConnectError):
            return Problem(Code.UNREACHABLE, printable(str(cause), 200), "check the address")
        if isinstance(cause, NoProtocol):
            return Problem(
                Code.INTERRUPTED,
                "we have no valid certificate at the moment, and did not call",
                "our own log says why; try again in a moment",
            )
        if isinstance(cause, ConnectingCancelledError):
            return Problem(
                Code.INTERRUPTED, "the attempt to connect was broken off on our side", "try again"
            )
    causes = list(_causes(error))
    if _is_unread(error):
        return Problem(Code.NOT_HTTP, "what it answered is not HTTP", "check the address")
    if any(isinstance(cause, ConnectionDone | ConnectionLost) for cause in causes):
        return Problem(Code.INTERRUPTED, "the other side closed the connection", "look at its log")
    words = printable(f"{type(causes[-1]).__name__}: {causes[-1]}", 200)
    return Problem(Code.INTERRUPTED, words, "look at the other side's log")


def reasons_of(error: BaseException | Failure) -> list[str]:
    """What OpenSSL said, where it ended it."""
    return [
        reason
        for cause in _causes(error)
        if isinstance(cause, SSL.Error)
        for reason in reasons_in(cause)
    ]


def alert_of(error: BaseException | Failure) -> str | None:
    """The alert by which the other side ended it, in OpenSSL's words; None where it sent none that we know."""
    for cause in _causes(error):
        if isinstance(cause, SSL.Error):
            found = (alert_in(reason) for reason in reasons_in(cause))
            return next((alert for alert in found if alert in ALERTS), None)
    return None


def _of_attempt(error: BaseException | Failure, reach: Reach) -> Problem | None:
    """What is known better than from ``error`` alone by whoever has watched the attempt."""
    causes = list(_causes(error))
    if any(isinstance(cause, PkiError) for cause in causes):
        return None
    has_tls_error = any(isinstance(cause, SSL.Error) for cause in causes)
    speaks, where = reach.speaks, reach.where
    if has_tls_error and speaks not in (None, "TLS"):
        return Problem(
            Code.NOT_TLS,
            f"what answers at {where} speaks {speaks}, and no TLS",
            "name the port where it speaks TLS",
        )
    if speaks == "TLS" and where.startswith("http://"):
        return Problem(
            Code.NOT_HTTP,
            f"what answers at {where} speaks TLS, and no plain HTTP",
            "write https://, or name the port where it speaks plain HTTP",
        )
    if not has_tls_error:
        for cause in causes:
            if (why := reach.why(cause)) is not None:
                detail, remedy = why
                return Problem(
                    Code.UNREACHABLE, f"no {reach.who} answers at {where}: {detail}", remedy
                )
        if _is_unread(error):
            return not_http(where, speaks)
    gone = any(isinstance(cause, ConnectionDone | ConnectionLost) for cause in causes)
    if reach.is_connected and (gone or _went_away(causes)):
        how = "closed it" if reach.heard else "closed it without a word"
        return Problem(
            Code.INTERRUPTED,
            f"{where} took the connection and {how}",
            "it runs, or something before it does: its log has the reason",
        )
    return None


def not_http(where: str, speaks: str | None = None) -> Problem:
    """Whoever answers at ``where`` and ``speaks`` so does not speak HTTP, or not to its end."""
    told = {
        "TLS": "",  # and what inside, the first bytes do not say
        "plain HTTP": " throughout: a header, a length or a chunk is none",
    }.get(speaks or "", f" but {speaks or 'something else'}")
    detail = f"what answers at {where} is not HTTP{told}"
    return Problem(Code.NOT_HTTP, detail, "check the address")


def _is_unread(error: BaseException | Failure) -> bool:
    """Whether an answer came to nothing by how it was written, whatever is raised by reading it."""
    value = error.value if isinstance(error, Failure) else error
    if not hasattr(value, "reasons"):
        return False
    # Who serves, and asks nobody, has no other use for it.
    from twisted.web.client import ResponseFailed

    if not isinstance(value, ResponseFailed):
        return False
    # The first is what happened; others follow from it.
    first = next((cause for cause in _causes(value) if not getattr(cause, "reasons", None)), value)
    return not isinstance(first, ConnectionDone | ConnectionLost | SSL.Error | PkiError)


def _went_away(causes: Sequence[BaseException]) -> bool:
    """Whether all that OpenSSL objects to is that the other side is gone."""
    return any(
        reason == "unexpected eof while reading"
        for cause in causes
        if isinstance(cause, SSL.Error)
        for reason in reasons_in(cause)
    )


def as_error(error: BaseException | Failure, reach: Reach | None = None) -> PkiError:
    """``error`` as one of ours: a refusal of ours as it is, else what :func:`problem_of` makes of it."""
    for cause in _causes(error):
        if isinstance(cause, PkiError):
            return cause
    problem = problem_of(error, reach)
    return Unreachable(problem) if problem.code == Code.UNREACHABLE else RefusedByPeer(problem)


def _causes(error: BaseException | Failure) -> Iterator[BaseException]:
    """``error`` and what it wraps: twisted.web keeps the failures that led to its own in ``reasons``."""
    value = error.value if isinstance(error, Failure) else error
    if value is None:
        return
    yield value
    for reason in getattr(value, "reasons", None) or ():
        yield from _causes(reason)
