"""A workload: follows its SVIDs by the Workload API, and prints each answer as a line of JSON. A program of its own.

``following.py SOCKET [again|token]``: with ``again`` it asks anew, 20 ms after each refusal; with ``token`` it asks for
a JWT-SVID, and has it judged, in place of that.
"""

import json
import sys
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import deferLater, react

from twisted_mesh.grpc.client import GrpcChannel
from twisted_mesh.grpc.status import GrpcError
from twisted_mesh.workload import messages
from twisted_mesh.workload.messages import (
    JwtSvidRequest,
    JwtSvidResponse,
    ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
    X509SvidRequest,
    X509SvidResponse,
)


def say(**facts: object) -> None:
    print(json.dumps({"at": time.time(), **facts}), flush=True)


async def follow(reactor: Any, path: str, *, again: bool) -> None:
    channel = GrpcChannel(reactor, UNIXClientEndpoint(reactor, path))
    metadata = [messages.SECURITY_HEADER]
    while True:
        try:
            call = await channel.stream(
                messages.FETCH_X509_SVID, X509SvidRequest().encode(), metadata=metadata
            )
            while (data := await call.receive()) is not None:
                found = X509SvidResponse.parse(data)
                say(
                    ids=[one.spiffe_id for one in found.svids],
                    serials=[
                        f"{certificates_of(one.x509_svid)[0].serial_number:x}"
                        for one in found.svids
                    ],
                    hints=[one.hint for one in found.svids],
                    crls=len(found.crl),
                    above=[digests_of(one.x509_svid)[1:] for one in found.svids],
                    roots=[digests_of(one.bundle) for one in found.svids],
                    federated={
                        at: digests_of(roots) for at, roots in found.federated_bundles.items()
                    },
                )
            say(status="OK")
        except GrpcError as error:
            say(status=error.status.name, why=error.text)
        if not again:
            return
        await deferLater(reactor, 0.02)


async def fetch_token(reactor: Any, path: str) -> None:
    """Ask for a token for ``there``, and whether it is good there."""
    channel = GrpcChannel(reactor, UNIXClientEndpoint(reactor, path))
    metadata = [messages.SECURITY_HEADER]
    try:
        data = await channel.unary(
            messages.FETCH_JWT_SVID, JwtSvidRequest(["there"], "").encode(), metadata=metadata
        )
        (found,) = JwtSvidResponse.parse(data).svids
        asked = ValidateJwtSvidRequest("there", found.svid).encode()
        data = await channel.unary(messages.VALIDATE_JWT_SVID, asked, metadata=metadata)
        valid = ValidateJwtSvidResponse.parse(data)
        say(token=found.spiffe_id, hint=found.hint, valid=valid.spiffe_id)
    except GrpcError as error:
        say(status=error.status.name, why=error.text)


def certificates_of(ders: bytes) -> list[x509.Certificate]:
    """Those that stand behind one another."""
    found = []
    while ders:
        size, head = ders[1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(ders[2:head])
        found.append(x509.load_der_x509_certificate(ders[: head + size]))
        ders = ders[head + size :]
    return found


def digests_of(ders: bytes) -> list[str]:
    return [cert.fingerprint(SHA256()).hex() for cert in certificates_of(ders)]


def main(reactor: Any) -> Deferred[None]:
    if "token" in sys.argv[2:]:
        return ensureDeferred(fetch_token(reactor, sys.argv[1]))
    return ensureDeferred(follow(reactor, sys.argv[1], again="again" in sys.argv[2:]))


if __name__ == "__main__":
    react(main)
