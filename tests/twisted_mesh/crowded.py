"""A program that serves ``/`` over TLS within bounds, for tests that flood it: ``python -m … DIRECTORY MOST``.

It writes what it needs to be believed (``root.pem``) and what a peer needs to be believed by it
(``peer.pem``, ``peer_key.pem``) to DIRECTORY, prints its port, and what its connection limit counted whenever
it is asked by a line, with how many descriptors it has at that moment; it ends with its standard input.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet import reactor, stdio
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.protocols.basic import LineReceiver
from twisted.web import resource, server

from pki.spiffe import SpiffePattern
from pki.svid.x509svid import certificates_pem
from tests.flooding import descriptors
from tests.twisted_mesh.tls.wires import good_svid, home
from twisted_mesh.http.request import BoundedRequest, answer
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget
from twisted_mesh.limits.rate_limit import Rate, RateLimited, TokenBuckets, address_key
from twisted_mesh.runtime.clock import steady
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.endpoints import listen
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust


class Root(resource.Resource):
    """Says ``here you are``, and to strangers no more often than the rate."""

    isLeaf = True

    def __init__(self, buckets: TokenBuckets) -> None:
        super().__init__()
        self.buckets = buckets

    def render(self, request: BoundedRequest) -> int:
        try:
            if request.channel.transport.peer is None:
                self.buckets.charge(address_key(request.channel.getPeer()))
        except RateLimited as error:
            later = {"retry-after": str(error.retry_after)}
            answer(request, 429, b"later", "text/plain", later)
        else:
            answer(request, 200, b"here you are", "text/plain")
        return server.NOT_DONE_YET


class Questions(LineReceiver):
    delimiter = b"\n"

    def __init__(self, connection_limit: ConnectionLimit) -> None:
        self.connection_limit = connection_limit

    def lineReceived(self, line: bytes) -> None:
        counted = self.connection_limit
        print(
            f"open {len(counted)} unproven {counted.unproven} refused {counted.refused} "
            f"made-room {counted.made_room} descriptors {descriptors(os.getpid())}",
            flush=True,
        )

    def connectionLost(self, reason: Any = None) -> None:
        reactor.stop()


def main(directory: str, most: str) -> None:
    clock, mesh, ours = steady(reactor), home(), good_svid()
    peers = good_svid(mesh, "service", "honest")
    root = certificates_pem(list(mesh.bundles.all_roots))
    Path(directory, "root.pem").write_bytes(root)
    Path(directory, "peer.pem").write_bytes(certificates_pem(list(peers.chain)))
    Path(directory, "peer_key.pem").write_bytes(peers.key.to_pem())
    trust = Trust(mesh.bundles, allow=(SpiffePattern.parse("spiffe://mesh.local/**"),))
    contexts = ContextFactory(Role(serves=True, demands_certificate=False))
    contexts.replace(ours, mesh.bundles.all_roots)
    connection_limit = ConnectionLimit(Capacity.of(int(most)), clock, "the flooded port")
    judge = Judge(lambda: datetime.now(UTC), trust)
    budget = HandshakeBudget(clock)
    security = Security(
        contexts, judge, clock, connection_limit=connection_limit, handshake_budget=budget
    )
    site = BoundedSite(Root(TokenBuckets(Rate(1, 100), clock.seconds)), clock)
    listening = listen(
        TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1"), site, security
    )
    listening.addCallback(lambda port: print(f"port {port.getHost().port}", flush=True))
    stdio.StandardIO(Questions(connection_limit))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
