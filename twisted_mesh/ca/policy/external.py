"""A decision point outside of the CA, such as Open Policy Agent: asked by HTTP, within bounds, and never believed half.

``POST {"input": …}``, and ``{"result": true}``, ``{"result": false}`` or ``{"result": {"allow": …, "reason": …}}`` is
the answer. All else, and no answer, is no decision.
"""

from http import HTTPStatus
from pathlib import Path

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import TimeoutError

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem, discreet
from pki.rules.errors import BadPolicy, PolicyUnavailable
from pki.rules.facts import Facts
from twisted_mesh.http.https_client import HttpsClient, WebUrl
from twisted_mesh.http.json import parse_json
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.runtime.tasks import within

#: Bytes of an answer.
LARGEST_ANSWER = 64 * 1024
#: Questions that one point is asked at a time, and how many may wait for their turn.
AT_ONCE = 16
MOST_WAITING = 512
_LONGEST_REASON = 300
_SOCKET = "unix:"
_HEADERS = {"content-type": "application/json", "accept": "application/json"}


class _Verdict(msgspec.Struct):
    allow: bool
    reason: str = ""


class _Answer(msgspec.Struct):
    result: bool | _Verdict


def point_url(text: str, name: str) -> WebUrl:
    """``https://HOST/PATH``, ``http://127.0.0.1:PORT/PATH`` or ``unix:SOCKET[:/PATH]``. Raises :class:`BadPolicy`."""
    try:
        if not text.startswith(_SOCKET):
            return WebUrl.parse(text, "url")
        socket, _, path = text.removeprefix(_SOCKET).partition(":")
        if socket.startswith("/") and too_long(Path(socket)) is None:
            at = WebUrl.parse(f"http://localhost{path or '/'}", "url")
            return WebUrl(at.text, at.scheme, at.host, at.port, socket)
        raise Malformed(f"url {discreet(text, 100)!r} is no socket: write unix:/run/opa.sock:/PATH")
    except Malformed as error:
        raise bad_point(name, str(error)) from None


def bad_point(name: str, detail: str, remedy: str = "") -> BadPolicy:
    """That what is said of a decision point cannot be used."""
    return BadPolicy([Problem(Code.BAD_POLICY, detail, remedy, subject=f"external {name}")])


@define(eq=False, repr=False)
class DecisionPoint:
    """One place that is asked, each time over a connection of its own."""

    name: str
    where: str
    """As it is written."""
    url: WebUrl
    client: HttpsClient
    """Its timeout is for the whole of a question, its turn included."""
    _turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)

    async def ask(self, asked: Facts) -> tuple[bool, str]:
        """Whether it allows what ``asked`` describes, and why. Raises :class:`PolicyUnavailable`."""
        if len(self._turns.waiting) >= MOST_WAITING:
            raise self._undecided("too many questions wait for it")
        body = msgspec.json.encode({"input": asked})
        turn = self._turns.run(lambda: Deferred.fromCoroutine(self._answer(body)))
        try:
            said = parse_json(
                await within(self.client.reactor, self.client.timeout, turn), _Answer
            ).result
        except PolicyUnavailable:
            raise
        except PkiError as error:
            raise self._undecided(str(error)) from None
        except TimeoutError:
            raise self._undecided("it did not answer in time") from None
        if isinstance(said, bool):
            return said, ""
        return said.allow, discreet(said.reason, _LONGEST_REASON)

    async def _answer(self, body: bytes) -> bytes:
        answer = await self.client.ask(
            self.url, LARGEST_ANSWER, method="POST", headers=_HEADERS, body=body
        )
        if answer.status != HTTPStatus.OK:
            raise self._undecided(f"it answers {answer.status}")
        return answer.body

    def _undecided(self, why: str) -> PolicyUnavailable:
        return PolicyUnavailable("", f"the decision point {self.name} has not decided: {why}")
