"""What a caller reads who is known here and may not connect: one answer, whatever it asks."""

from time import time

from twisted.web import server
from twisted.web.http import datetimeToString

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.http.json import PROBLEM_TYPE, problem_body
from twisted_mesh.trust.connections import Peer

#: A head that is longer is answered before its end.
_LONGEST_HEAD = 16 * 1024
OF_SERVER = (
    "add --allow {} where the server is started, or call as a service that may (--spiffe-id)"
)
OF_PROXY = (
    "name {} in --allow of the proxy (allow = […] in its file), or call as a service that may"
)
OF_CA = "call the CA as a member of its own trust domain"


class HttpRefusal:
    """403 to the first request, which is not even read: its method says whether a body follows the answer."""

    def __init__(self, peer: Peer, problem: Problem, cure: str = OF_SERVER) -> None:
        """``cure`` says what to change for who is not among those that may, ``{}`` in it is the caller's ID."""
        if problem.code is Code.POLICY_DENIED:
            detail = problem.detail  # with the rule's name
        else:
            # Who they are is none of its business.
            detail = (
                f"{peer.spiffe_id} has proven who it is, and is not among those that may connect: "
                f"{cure.format(peer.spiffe_id)}"
            )
        self._body = problem_body(403, problem.code, detail)
        self._head = b""

    def hear(self, data: bytes) -> bytes:
        """The answer, once the head of the request is whole; what it asks for makes no difference."""
        # Empty lines before a request are passed over (RFC 9112 section 2.2).
        self._head = (self._head + data).lstrip(b"\r\n")
        is_whole = b"\r\n\r\n" in self._head or b"\n\n" in self._head
        return self._answer() if is_whole or len(self._head) > _LONGEST_HEAD else b""

    def out_of_time(self) -> bytes:
        """The same, unasked: whoever asks later finds it."""
        return self._answer()

    def _answer(self) -> bytes:
        lines = (
            b"HTTP/1.1 403 Forbidden",
            b"Server: " + server.version,
            b"Date: " + datetimeToString(int(time())),
            b"Cache-Control: no-store",
            b"Connection: close",
            b"Content-Type: " + PROBLEM_TYPE.encode("ascii"),
            b"Content-Length: %d" % len(self._body),
            b"\r\n",
        )
        head = b"\r\n".join(lines)
        return head if self._head.startswith(b"HEAD ") else head + self._body
