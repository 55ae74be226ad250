"""What a broken TLS connection means: OpenSSL's errors and the peer's alerts as problems with a remedy."""

from collections.abc import Iterator, Sequence

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused, printable
from twisted_mesh.runtime.reach import Reach

_DATES = {Code.EXPIRED, Code.NOT_YET_VALID}
_FRESH = "request a fresh certificate, and compare the two machines' clocks"

#: The alerts of RFC 8446 section 6.2 as OpenSSL spells them, and what they tell whoever gets one.
_ALERTS: dict[str, tuple[Code, str, str]] = {
    "certificate required": (
        Code.NO_CERTIFICATE,
        "it demands a client certificate, and we sent none",
        "present an SVID",
    ),
    "certificate expired": (Code.EXPIRED, "it says that our certificate has expired", _FRESH),
    "certificate revoked": (
        Code.REVOKED,
        "it says that our certificate is revoked",
        "ask an administrator why",
    ),
    "unknown ca": (
        Code.UNKNOWN_AUTHORITY,
        "it does not know the authority that signed our certificate",
        "use a certificate of its mesh, and send the intermediates along",
    ),
    "unsupported certificate": (
        Code.WRONG_USAGE,
        "our certificate does not allow this use",
        "present an SVID with clientAuth and serverAuth",
    ),
    "bad certificate": (
        Code.BAD_CERTIFICATE,
        "it refuses our certificate: it is not an SVID, not yet valid, or not allowed there",
        "its log has the reason; look at ours with pki-inspect show",
    ),
    "certificate unknown": (
        Code.BAD_CERTIFICATE,
        "it cannot make sure of our certificate now: what it knows of revocations may be out of date",
        "try again later; its log has the reason",
    ),
    "bad certificate status response": (
        Code.STAPLE_REFUSED,
        "it does not take the OCSP answer that we staple to our certificate, or misses one",
        "its log has the reason; look whether our certificate is revoked, and whether our CA answers",
    ),
    "protocol version": (
        Code.PROTOCOL_VERSION,
        "it does not speak our version of TLS",
        "the mesh speaks TLS 1.3 only",
    ),
    "handshake failure": (
        Code.HANDSHAKE_FAILURE,
        "we have nothing to speak in common",
        "the mesh speaks TLS 1.3 only",
    ),
    "internal error": (
        Code.REFUSED_BY_PEER,
        "it refused us without saying why",
        "the reason is in its log",
    ),
}

#: OpenSSL's own complaints about what it received.
_ERRORS: dict[str, tuple[Code, str, str]] = {
    "peer did not return a certificate": (
        Code.NO_CERTIFICATE,
        "the peer presented no certificate",
        "present an SVID of this mesh: curl takes --cert and --key",
    ),
    "unsupported protocol": (
        Code.PROTOCOL_VERSION,
        "the peer speaks no TLS 1.3",
        "the mesh speaks TLS 1.3 only: update the peer",
    ),
    "http request": (Code.NOT_TLS, "the peer speaks plain HTTP", "use https:// on this port"),
    "https proxy request": (
        Code.NOT_TLS,
        "the peer speaks plain HTTP to a proxy",
        "use https:// on this port",
    ),
    "wrong version number": (
        Code.NOT_TLS,
        "what the peer sent is not TLS",
        "speak TLS 1.3 on this port",
    ),
    "record layer failure": (
        Code.NOT_TLS,
        "what the peer sent is not TLS, or was changed on the way",
        "speak TLS 1.3",
    ),
    "packet length too long": (
        Code.NOT_TLS,
        "what the peer sent is not TLS",
        "speak TLS 1.3 on this port",
    ),
    "unexpected message": (
        Code.MALFORMED,
        "the peer sent a message out of order",
        "speak TLS 1.3 on this port",
    ),
    "no shared cipher": (
        Code.HANDSHAKE_FAILURE,
        "no common cipher",
        "the mesh speaks TLS 1.3 only",
    ),
    "unexpected eof while reading": (
        Code.INTERRUPTED,
        "the peer went away in the middle",
        "look at its log",
    ),
}


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
            return _from_openssl(cause)
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
    causes = list(_causes(error))
    if _is_unread(error):
        return Problem(Code.NOT_HTTP, "what it answered is not HTTP", "check the address")
    if any(isinstance(cause, ConnectionDone | ConnectionLost) for cause in causes):
        return Problem(Code.INTERRUPTED, "the other side closed the connection", "look at its log")
    words = printable(f"{type(causes[-1]).__name__}: {causes[-1]}", 200)
    return Problem(Code.INTERRUPTED, words, "look at the other side's log")


def alert_of(error: BaseException | Failure) -> str | None:
    """The alert by which the other side ended it, in OpenSSL's words; None where it sent none that we know."""
    for cause in _causes(error):
        if isinstance(cause, SSL.Error):
            found = (_alert_in(reason) for reason in _reasons(cause))
            return next((alert for alert in found if alert in _ALERTS), None)
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
        for reason in _reasons(cause)
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


def _reasons(error: SSL.Error) -> Iterator[str]:
    """The words of OpenSSL's error queue. A SysCallError has a number in its place."""
    queue = error.args[0] if error.args else ()
    for entry in queue if isinstance(queue, list | tuple) else ():
        match entry:
            case (_, _, str(reason)):
                yield reason


def _alert_in(reason: str) -> str | None:
    """The alert that OpenSSL tells of, if it does. Of those of RFC 6066 it does not say that they are some."""
    if "alert" in reason:
        return reason.rpartition("alert ")[2]
    name = reason.removeprefix("tlsv1 ")
    return name if name in _ALERTS else None


def _from_openssl(error: SSL.Error) -> Problem:
    reasons = list(_reasons(error))
    for reason in reasons:
        alert = _alert_in(reason)
        if alert in _ALERTS:
            code, detail, remedy = _ALERTS[alert]
            return Problem(
                code, f"the other side refused us: {detail}", remedy, f"TLS alert: {alert}"
            )
        if alert is not None:
            return Problem(
                Code.REFUSED_BY_PEER,
                f"the other side sent the TLS alert {alert}",
                "look at its log",
            )
        if reason in _ERRORS:
            return Problem(*_ERRORS[reason])
    detail = ", ".join(reasons) or "an unexplained TLS error"
    return Problem(Code.TLS_ERROR, printable(detail, 200), "look at the other side's log")
