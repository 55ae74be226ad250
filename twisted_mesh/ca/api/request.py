"""What a request to the CA's API says: caller, body, parameters, each read strictly."""

import re
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred

from pki.codes import Code
from pki.errors import Malformed, discreet
from pki.policy.principal import Kind, Principal
from pki.serial import parse_serial
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import GIVEN_REASONS, Reason
from pki.validity import parse_rfc3339
from twisted_mesh.api.messages import LARGEST_PAGE
from twisted_mesh.attest.registry import Attestors
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.policy.source import NOWHERE, Source, Transport
from twisted_mesh.http.json import BadRequest, parse_json
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.connection_limit import Place
from twisted_mesh.limits.rate_limit import address_key
from twisted_mesh.stores.records import IssuedToken, Query, Status
from twisted_mesh.tls.connection import MeshConnection
from twisted_mesh.trust.connections import Peer

T = TypeVar("T")
_MAX_KEY, _LONGEST_INSTANCE = 255, 64
_MOST = 2**62
_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIMES = ("issued_after", "issued_before", "expires_after", "expires_before")
#: The parameters of a list of certificates.
FILTERS = {
    "spiffe_id", "status", "issuer", "key", "entry", "agent", "claim", "serial", "limit", "cursor", *_TIMES
}  # fmt: skip


@frozen
class Call:
    """One request, once it is known who asks and that they may ask at all."""

    principal: Principal
    body: bytes
    query: dict[str, str]
    rest: str = ""
    """What stands in the path where the route has a ``*``, as it came."""
    idempotency_key: str | None = None
    _request: SiteRequest | None = None
    address: str = ""
    """Whose network it comes from, for who has no other name."""
    token: IssuedToken | None = None
    """The join token that it was sent with."""
    _asked: object = None
    """What the body was read as already."""
    attestors: Attestors | None = None
    """Who was asked about the caller."""

    @property
    def is_gone(self) -> bool:
        """Whether the caller hung up."""
        return self._request is not None and self._request.is_gone

    @property
    def certificate_ends(self) -> datetime | None:
        """When the certificate does that the connection was opened with; None without one."""
        request = self._request
        peer = None if request is None else getattr(request.channel.transport, "peer", None)
        return peer.leaf.not_valid_after_utc if isinstance(peer, Peer) else None

    @property
    def source(self) -> Source:
        """Where it comes from."""
        request = self._request
        return NOWHERE if request is None else source_of(request.channel)

    def gone(self) -> "Deferred[None] | None":
        """What fires once the caller has hung up or was answered; it never fails, so that it may be forgotten."""
        if self._request is None:
            return None
        return self._request.notifyFinish().addErrback(lambda _: None)

    def close_after(self) -> None:
        """Close the connection after the answer."""
        if self._request is not None:
            self._request.close_after()

    @property
    def who(self) -> str:
        """Who takes turns with others: whoever has proven nothing, by their network."""
        return self.address if self.principal.kind is Kind.ANONYMOUS else self.principal.proof

    @property
    def holder(self) -> str:
        """Who answers for the caller where room is wanted: what let several IDs in, or the caller itself."""
        request = self._request
        held = None if request is None else holder_of(request.channel.transport)
        return held or self.who

    def read(self, shape: type[T]) -> T:
        """The body as a ``shape``. Raises :class:`BadRequest`."""
        asked = self._asked
        return asked if isinstance(asked, shape) else parse_json(self.body, shape)

    def number(self, name: str, default: int, least: int = 0, most: int = _MOST) -> int:
        """A parameter that is a whole number. Raises :class:`Malformed`."""
        return _whole_number(self.query.get(name, str(default)), name, least, most)

    def page(self) -> tuple[int, int]:
        """From where on, and how many: ``start`` and ``limit``."""
        return self.number("start", 0), self.number("limit", 100, 1, LARGEST_PAGE)


class OtherMedia(BadRequest):
    """The body is of another type than the route takes."""

    code = Code.UNSUPPORTED_MEDIA_TYPE


class CrossOrigin(BadRequest):
    """A web page could have sent it."""

    code = Code.CROSS_ORIGIN


@frozen
class Contents:
    """What a request says besides its path and who asks."""

    body: bytes
    query: dict[str, str]
    idempotency_key: str | None


def contents_of(request: SiteRequest) -> Contents:
    """What ``request`` says. What is in the body is not looked at.

    Raises :class:`Malformed` for a parameter that is given twice and a bad ``Idempotency-Key``.
    """
    return Contents(request.body, _query(request), _idempotency_key(request))


def call_of(
    request: SiteRequest,
    contents: Contents,
    principal: Principal,
    rest: str,
    *,
    token: IssuedToken | None = None,
    asked: object = None,
    attestors: Attestors | None = None,
) -> Call:
    """``request`` by ``principal``; ``rest`` stands for its route's ``*``, ``asked`` is what the body was read as."""
    return Call(
        principal,
        contents.body,
        contents.query,
        rest,
        contents.idempotency_key,
        request,
        address_key(request.channel.getPeer()),
        token,
        asked,
        attestors,
    )


def holder_of(transport: object) -> str | None:
    """What bought the certificate of a connection and perhaps others, as ``entry:ID``; None where it is not known."""
    place: Place | None = getattr(transport, "place", None)
    return None if place is None or place.holder == place.key else place.holder


def source_of(channel: Any) -> Source:
    """Where the requests of a connection come from, by its address."""
    peer = _peer_of(channel)
    if isinstance(peer, UNIXAddress):
        return Source(transport=Transport.UNIX)
    is_tls = isinstance(channel.transport, MeshConnection)
    return Source.at(peer.host, peer.port, Transport.TLS if is_tls else Transport.HTTP)


def _peer_of(channel: Any) -> Any:
    return channel.getPeer()


def path_of(request: SiteRequest) -> str:
    """The path, still percent-encoded."""
    return request.path.decode("ascii", "replace")


def _idempotency_key(request: SiteRequest) -> str | None:
    given = request.requestHeaders.getRawHeaders(b"idempotency-key")
    if given is None:
        return None
    key = given[0].decode("ascii", "replace")
    if len(given) != 1 or not 0 < len(key) <= _MAX_KEY or not (key.isprintable() and key.isascii()):
        raise Malformed(
            f"Idempotency-Key is given once, in 1 to {_MAX_KEY} printable ASCII characters"
        )
    return key


def given_reason(text: str) -> Reason:
    """A reason that a certificate of ours can be revoked for. Raises :class:`Malformed`."""
    if text not in GIVEN_REASONS:
        raise Malformed(
            f"{discreet(text, 60)!r} is no reason: choose one of {', '.join(GIVEN_REASONS)}"
        )
    return Reason(text)


def certificate_query(asked: dict[str, str], now: datetime) -> Query:
    """What the parameters of a list ask for. Raises :class:`Malformed`, also for one that there is not."""
    unknown = set(asked) - FILTERS
    if unknown:
        raise Malformed(
            f"{discreet(min(unknown), 40)!r} is no parameter here: there are {', '.join(sorted(FILTERS))}"
        )
    status = asked.get("status")
    if status is not None and status not in tuple(Status):
        raise Malformed(f"{discreet(status, 40)!r} is no status: choose one of {', '.join(Status)}")
    whose = asked.get("spiffe_id")
    subtree = whose is not None and whose.endswith("/**")
    spiffe_id = SpiffeId.parse(whose.removesuffix("/**")) if whose is not None else None
    times: dict[str, Any] = {name: parse_rfc3339(asked[name]) for name in _TIMES if name in asked}
    return Query(
        now=now,
        spiffe_id=None if subtree else spiffe_id,
        below=spiffe_id if subtree else None,
        status=Status(status) if status else None,
        issuer=key_digest(asked.get("issuer"), "issuer"),
        key=key_digest(asked.get("key"), "key"),
        entry=asked.get("entry"),
        claim=asked.get("claim"),
        serial=parse_serial(asked["serial"]) if "serial" in asked else None,
        agent=_agent(asked.get("agent")),
        **times,
        limit=_whole_number(asked.get("limit", "100"), "limit", 1, LARGEST_PAGE),
        cursor=asked.get("cursor"),
    )


def _agent(text: str | None) -> SpiffeId | None:
    agent = None if text is None else SpiffeId.parse(text)
    if agent is not None and agent.agent is None:
        raise Malformed("the parameter agent is the ID of one: spiffe://TD/mesh/agent/NAME")
    return agent


def demand_instance(name: str) -> None:
    """Raises :class:`Malformed` for what no process of those that prove the same may be called."""
    if not (0 < len(name) <= _LONGEST_INSTANCE and name.isascii() and name.isalnum()):
        raise Malformed(f"instance is a name of 1 to {_LONGEST_INSTANCE} letters and digits")


def key_digest(text: str | None, name: str) -> str | None:
    """The value of a parameter that names a key by its SHA-256. Raises :class:`Malformed`."""
    if text is not None and not _KEY_ID.fullmatch(text):
        raise Malformed(f"the parameter {name} is a SHA-256 in 64 digits of lower-case hex")
    return text


def refuse_other_media(request: SiteRequest, media: str = "application/json") -> None:
    """Raises :class:`OtherMedia` for a body that does not say that it is of that type."""
    header = request.getHeader(b"content-type") or b""
    if header.partition(b";")[0].strip().lower() != media.encode():
        raise OtherMedia(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body as content-type {media}"
        )


def unless_held(request: SiteRequest, answer: Answer) -> Answer:
    """``answer``, or that the caller has it."""
    if not answer.headers:
        return answer
    held = (request.getHeader(name) for name in (b"if-none-match", b"if-modified-since"))
    etags, date = (value.decode("ascii", "replace") if value else None for value in held)
    return answer.unless_held(etags, date)


def _query(request: SiteRequest) -> dict[str, str]:
    found = {}
    for name, values in (request.args or {}).items():
        if len(values) != 1:
            raise Malformed(
                f"the parameter {discreet(name.decode('utf-8', 'replace'), 40)!r} is given {len(values)} times"
            )
        found[name.decode("utf-8", "replace")] = values[0].decode("utf-8", "replace")
    return found


def refuse_browsers(request: SiteRequest) -> None:
    """Raises :class:`CrossOrigin` for what a web page could have sent."""
    hosts = request.requestHeaders.getRawHeaders(b"host") or ()
    host = hosts[0] if len(hosts) == 1 else b""
    if (host.rpartition(b":")[0] or host) not in (b"localhost", b"127.0.0.1"):
        raise CrossOrigin(
            HTTPStatus.FORBIDDEN,
            "the plaintext port answers to the hosts localhost and 127.0.0.1 only",
        )
    if request.requestHeaders.hasHeader(b"origin"):
        raise CrossOrigin(
            HTTPStatus.FORBIDDEN,
            "the plaintext port answers no web pages: the request has an Origin",
        )


def _whole_number(text: str, name: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise Malformed(f"the parameter {name} is a whole number from {least} to {most}")
    return int(text)
