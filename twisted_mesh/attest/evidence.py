"""What comes with a request and could say who asks, and what an attestor makes of it."""

import socket
from collections.abc import Callable
from datetime import datetime
from typing import Self, TypeVar

import msgspec
from attrs import field, frozen
from twisted.web.http_headers import Headers

from pki.errors import Malformed, Problem, discreet
from pki.policy.policy import NoProof
from pki.policy.selector import Selector, UnknownSelector
from pki.spiffe import SpiffeId
from twisted_mesh.evidence.data import AttestationData
from twisted_mesh.stores.records import IssuedToken
from twisted_mesh.tls.connection import MeshConnection
from twisted_mesh.trust.connections import Peer

T = TypeVar("T")

#: As a number, as the system has it: to make Python's constant of it takes a while.
_family: Callable[[socket.socket], int] = socket.SocketType.family.__get__


class Lapsed(NoProof):
    """What was proven when the connection was opened is proven no more.

    Its bearer is somebody without that proof from now on, who may have what needs none, and may prove
    himself in another way.
    """


@frozen
class TlsPeer:
    """Whom the TLS handshake proved, which may be long ago, and what there is to object to it now."""

    proven: Peer
    is_good: bool = True
    """Whether it would be let in again."""
    objections: tuple[Problem, ...] = ()
    """Why not; none where the connection is ending anyway."""
    only_renews: bool = False
    """Whether it rests on a CA that is revoked: its leaf proves who it is if the record has it, byte for byte."""

    @classmethod
    def of(cls, connection: MeshConnection) -> Self | None:
        """None where the peer has shown no certificate."""
        if connection.peer is None:
            return None
        is_good = connection.still_good()
        objections = () if is_good else tuple(connection.objections())
        return cls(connection.peer, is_good, objections, connection.only_renews)


@frozen
class Evidence:
    """All that a request brings along and that could say who asks. Its ``repr`` shows no secret."""

    peer: TlsPeer | None = None
    process: socket.socket | None = None
    """A unix socket, at whose other end is a process of this machine."""
    token: str | None = field(default=None, repr=False)
    """A join token, as the caller wrote it."""
    headers: Headers = field(factory=Headers, repr=False)
    """Of the request."""
    attestation: AttestationData | None = None
    """What the caller shows of the platform that it runs on: the member of that name in the request's body."""
    csr: str | None = field(default=None, repr=False)
    """The request that is to be signed, in PEM as the caller wrote it, for a proof that is bound to its key."""
    address: str = ""
    """Which network it comes from, as its requests are counted."""

    @classmethod
    def of(cls, transport: object, headers: Headers | None = None, address: str = "") -> Self:
        """What the connection of a request shows at this moment, as its protocol was given it, and its headers."""
        headers = Headers() if headers is None else headers
        # A connection over TLS is somebody else's than whoever carries it.
        if isinstance(transport, MeshConnection):
            return cls(TlsPeer.of(transport), headers=headers, address=address)
        connected = getattr(transport, "socket", None)
        if isinstance(connected, socket.socket) and _family(connected) == socket.AF_UNIX:
            return cls(process=connected, headers=headers, address=address)
        return cls(headers=headers, address=address)

    def header(self, name: str) -> bytes | None:
        """The value of the header ``name``, in any case; None where there is none.

        Raises :class:`NoProof` where it is given more than once: which of them counts must not depend
        on who reads it.
        """
        values = self.headers.getRawHeaders(name.encode("ascii"), [])
        if len(values) > 1:
            raise NoProof(f"the header {name} is given {len(values)} times: give it once")
        return values[0] if values else None


@frozen
class Attestation:
    """What one attestor has proven of a caller. All of it may be shown and logged."""

    proof: str
    """For the log and the audit: ``unix:uid:1000``, ``x509:spiffe://…``, ``token:4f1d…``."""
    selectors: frozenset[Selector]
    spiffe_id: SpiffeId | None = None
    serial: int | None = None
    """Of the SVID that was presented."""
    entry: str | None = None
    """The only registration entry that counts: the one that a join token is bound to."""
    only_renews: bool = False
    """Whether that SVID may be renewed, and is good for nothing else."""
    uid: int | None = None
    """The user on the other end of a unix socket."""
    claim: str | None = None
    """What of it counts once, for one key: ``aws_iid:ACCOUNT:REGION:INSTANCE``; None where it may be shown again."""
    claim_until: datetime | None = None
    """From when on nobody can show it any more, as a token that has expired, so that it need not be remembered."""
    token: IssuedToken | None = None
    """The join token: whether this key may use it, and whether this is the request it was spent
    with, is for whoever reads the request."""


class WithoutChallenge:
    """Base of attestors to whom their evidence is enough as it comes."""

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        """None, whatever is asked for."""
        return None


def seen(kind: str, *values: object) -> frozenset[Selector]:
    """A selector for each value; none for a value that no registration entry could name."""
    found = set()
    for value in values:
        try:
            found.add(Selector.parse(f"{kind}:{value}"))
        except UnknownSelector:
            continue
    return frozenset(found)


def read_data(data: bytes, shape: type[T]) -> T:
    """Evidence as the shape that its attestor wants, like ``str`` or a struct. Raises :class:`Malformed`.

    That a key stands twice in it, or that it is nested beyond reason, was refused before.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Malformed(
            f"the data of this attestation do not fit: {discreet(str(error), 200)}"
        ) from None
