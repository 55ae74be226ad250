"""What a CA asks the API server of a Kubernetes cluster, within bounds: TokenReview, pods, nodes, its public keys.

Whatever keeps it from answering is no word about who asked: :class:`AttestorUnavailable`, and the reason in our log.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from attrs import define, field, frozen

from pki.errors import PkiError, printable
from pki.svid.x509svid import load_certificates
from twisted_mesh.attest.errors import AttestorUnavailable
from twisted_mesh.attest.k8s_pod import Node, Pod
from twisted_mesh.http.https_client import HttpsClient, WebAnswer, WebUrl
from twisted_mesh.http.json import parse_json
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError, read_trusted

T = TypeVar("T")
_log = logger("attest")

#: Of a TokenReview, which has the token in it again.
_LARGEST_REVIEW = 128 * 1024
#: Of an object: etcd takes no larger ones.
_LARGEST_OBJECT = 2 * 1024 * 1024
_LARGEST_JWKS = 128 * 1024
_LARGEST_CA_FILE = 1024 * 1024
_LARGEST_TOKEN = 16 * 1024
#: Questions under way to one API server. Whoever comes then is asked to come again.
MOST_UNDER_WAY = 64
_LONGEST_PAUSE = 60.0
_OK, _CREATED, _NOT_FOUND = 200, 201, 404
#: What keeps the API server from answering us, and only us.
_REMEDIES = {
    401: "it does not know this CA's own token: look at token_file",
    403: "this CA's service account may not ask it: give it the ClusterRole of docs/KUBERNETES.md",
}


class UserInfo(msgspec.Struct, frozen=True):
    """Whom the API server takes the bearer of a token for."""

    username: str = ""
    uid: str = ""
    extra: dict[str, list[str]] | None = None

    def only(self, name: str) -> str:
        """What ``extra`` has under ``authentication.kubernetes.io/NAME``, if that is one value; else nothing."""
        values = (self.extra or {}).get(f"authentication.kubernetes.io/{name}", [])
        return values[0] if len(values) == 1 else ""


class TokenReviewStatus(msgspec.Struct, frozen=True):
    """The API server's word on a token (TokenReview of authentication.k8s.io/v1)."""

    authenticated: bool = False
    user: UserInfo = UserInfo()
    audiences: list[str] | None = None
    """Which of those that were asked about the token is for. One that knows of no audiences says none."""
    error: str = ""


class _TokenReview(msgspec.Struct, frozen=True):
    kind: str
    status: TokenReviewStatus = TokenReviewStatus()


class _NamedKind(msgspec.Struct, frozen=True):
    kind: str


@frozen
class ApiAddress:
    """Where an API server is, and how it and this CA prove to each other who they are."""

    cluster: str
    """For people."""
    server: WebUrl
    ca_file: Path
    """By whose certificates it is believed; read again each time."""
    token_file: Path
    """Our own token, which is replaced by whoever mounts it; read again each time."""
    timeout: float
    """Seconds for one question."""


@define(eq=False, repr=False)
class K8sApi:
    """The API server of one cluster."""

    reactor: IReactor
    address: ApiAddress
    requires_pq: bool = False
    """Whether keys are exchanged by hybrid groups alone."""
    _ca: bytes = field(default=b"", init=False)
    _client: HttpsClient | None = field(default=None, init=False)
    _under_way: int = field(default=0, init=False)
    _why: str = field(default="", init=False)
    """What it was last that kept it from answering."""

    async def review(self, token: str, audiences: Sequence[str]) -> TokenReviewStatus:
        """What it says of ``token``. Raises :class:`AttestorUnavailable`, as all of these."""
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(audiences)},
        }
        body = msgspec.json.encode(asked)
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        answer = await self._ask(path, _LARGEST_REVIEW, body)
        found = self._read(answer, _TokenReview, (_OK, _CREATED))
        if found.kind != "TokenReview":
            raise self._away("it answers a TokenReview with something else")
        return found.status

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """None where there is none of that name. Both are names of the API, without a slash."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        return await self._object(path, "Pod", Pod)

    async def node(self, name: str) -> Node | None:
        """None where there is none of that name."""
        return await self._object(f"/api/v1/nodes/{name}", "Node", Node)

    async def jwks(self) -> bytes:
        """The public keys that its tokens are signed by, as a JWKS."""
        answer = await self._ask("/openid/v1/jwks", _LARGEST_JWKS)
        if answer.status != _OK:
            raise self._refused(answer)
        return answer.body

    async def _object(self, path: str, kind: str, shape: type[T]) -> T | None:
        answer = await self._ask(path, _LARGEST_OBJECT)
        if answer.status == _NOT_FOUND and self._read_kind(answer.body) == "Status":
            return None
        if answer.status == _OK and self._read_kind(answer.body) != kind:
            raise self._away(f"it answers the question for a {kind} with something else")
        return self._read(answer, shape, (_OK,))

    def _read_kind(self, body: bytes) -> str:
        """So that a 404 of something that stands before the API server is not taken for its word."""
        try:
            return parse_json(body, _NamedKind).kind
        except PkiError:
            return ""

    def _read(self, answer: WebAnswer, shape: type[T], good: Sequence[int]) -> T:
        if answer.status not in good:
            raise self._refused(answer)
        try:
            found = parse_json(answer.body, shape)
        except PkiError as error:
            raise self._away(f"its answer cannot be read: {error}") from None
        self._why = ""
        return found

    async def _ask(self, path: str, limit: int, body: bytes | None = None) -> WebAnswer:
        if self._under_way >= MOST_UNDER_WAY:
            raise AttestorUnavailable(
                f"{MOST_UNDER_WAY} questions to the API server of {self.address.cluster} are under way, and no more "
                "are asked at once: ask again in a moment",
                1.0,
            )
        self._under_way += 1
        try:
            headers = {
                "authorization": f"Bearer {self._own_token()}",
                # Its keys it gives only to whoever takes their own media type.
                "accept": "application/json, application/jwk-set+json",
                "user-agent": "twisted-mesh",
            }
            if body is not None:
                headers["content-type"] = "application/json"
            url = WebUrl.parse(f"{self.address.server}{path}", "server")
            method = "GET" if body is None else "POST"
            client = self._current_client()
            answer = await client.ask(url, limit, method=method, headers=headers, body=body)
        except AttestorUnavailable:
            raise
        except PkiError as error:
            raise self._away(str(error)) from None
        finally:
            self._under_way -= 1
        return answer

    def _current_client(self) -> HttpsClient:
        """Raises :class:`StateError`, and :class:`Malformed` for a file without certificates."""
        data = read_trusted(self.address.ca_file, "ca_file", _LARGEST_CA_FILE)
        if self._client is None or data != self._ca:
            roots = load_certificates(data, f"ca_file {self.address.ca_file}")
            who = f"API server of {self.address.cluster}"
            self._client = HttpsClient(
                self.reactor, roots, self.address.timeout, who, self.requires_pq
            )
            self._ca = data
        return self._client

    def _own_token(self) -> str:
        path = self.address.token_file
        token = read_trusted(path, "token_file", _LARGEST_TOKEN).decode("ascii", "replace").strip()
        # It goes into a header: a line break in it would be one more.
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise StateError(f"token_file {path} has no token in it")
        return token

    def _refused(self, answer: WebAnswer) -> AttestorUnavailable:
        said = _REMEDIES.get(answer.status, printable(_message(answer.body), 200))
        return self._away(f"it answers {answer.status}: {said}", _pause(answer.headers))

    def _away(self, why: str, seconds: float | None = None) -> AttestorUnavailable:
        """Our log has the reason, once for each: a stranger need not hear how this CA stands with its cluster."""
        shown = printable(why, 400)
        if shown != self._why:
            self._why = shown
            _log.warn(
                "The API server of {cluster} cannot be asked: {why}",
                event="k8s-api-away",
                cluster=self.address.cluster,
                why=shown,
            )
        text = (
            f"the API server of {self.address.cluster} cannot be asked now, and nobody else says whether a token of "
            "its is good: the CA's log has the reason"
        )
        return AttestorUnavailable(text) if seconds is None else AttestorUnavailable(text, seconds)


def _message(body: bytes) -> str:
    """What a Status of the API says."""
    try:
        return msgspec.json.decode(body, type=_Status).message
    except (msgspec.DecodeError, RecursionError, ValueError):
        return "its answer does not say why"


class _Status(msgspec.Struct, frozen=True):
    message: str = "its answer does not say why"


def _pause(headers: Mapping[str, str]) -> float | None:
    """What ``Retry-After`` says in seconds, within reason."""
    text = headers.get("retry-after", "")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        return None
    return min(float(text), _LONGEST_PAUSE)
