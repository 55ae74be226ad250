"""What the proxy answers by itself, where a request or its answer is not passed on."""

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.http.json import problem_body
from twisted_mesh.proxy.http_message import written

_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
}
_TARGET_IS_DOWN = Problem(
    Code.UNREACHABLE,
    "the service behind this proxy cannot be reached",
    "try again later; the proxy's log has the reason",
)


def own_answer(status: int, body: bytes) -> bytes:
    """The whole of it; nothing comes behind it."""
    head = written(
        b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
        (
            (b"Content-Type", b"application/problem+json"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Connection", b"close"),
        ),
    )
    return head + body


def target_is_down(problem: Problem) -> bytes:
    """The body where the target cannot be reached, by the code of ``problem``."""
    return problem_body(502, problem.code, _TARGET_IS_DOWN.detail, [_TARGET_IS_DOWN])


def bad_answer(why: str) -> bytes:
    """The body where the target's answer cannot be passed on."""
    detail = f"what the service behind this proxy answers is no good HTTP: {why}"
    problem = Problem(Code.NOT_HTTP, detail, "look at that service")
    return problem_body(502, problem.code, detail, [problem])


#: The body where it has hung up in place of an answer.
HUNG_UP = bad_answer("it hung up before it had answered")
