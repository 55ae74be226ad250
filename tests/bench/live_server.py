"""A server under measurement that revokes whom its standard input names, and says when it had done so.

``python -m tests.bench.live_server DIRECTORY``: the directory holds its SVID, key and root. Lines that
come are ``ISSUER SERIAL``, in hex; lines that go are a port first, and then a moment of the monotonic
clock, which is the same in all processes of a machine.
"""

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner
from twisted.protocols.basic import LineOnlyReceiver

from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid, load_certificates
from twisted_mesh import monitoring, observe
from twisted_mesh.http.server import Limits
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.interfaces import Identity, TrustUpdate
from twisted_mesh.runtime.clock import steady, wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.server import MeshSite, StatusResource
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.endpoints import listen
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.trust.trust import Trust

reactor: Any = _reactor


class Given:
    """A source of the one identity that is in a directory."""

    where = "a directory"

    def __init__(self, home: Path, trust_domain: TrustDomain) -> None:
        chain = load_certificates((home / "server.pem").read_bytes(), "server.pem")
        key = MemoryKey.from_pem((home / "server.key").read_bytes())
        bundle = TrustBundle.from_pem(trust_domain, (home / "root.pem").read_bytes())
        self._identity = Identity(X509Svid.assemble(chain, key), BundleSet.of(bundle), wall_clock())

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        return self._identity

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        return TrustUpdate()

    def renewed(self) -> None:
        """Nobody is asked."""


class Orders(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, trust: TrustStore) -> None:
        self.trust = trust

    def lineReceived(self, line: bytes) -> None:
        issuer, serial = line.decode().split()
        now = wall_clock()
        end = now + timedelta(hours=1)
        self.trust.revoked([Revocation(issuer, int(serial, 16), now, Reason.UNSPECIFIED, end)])
        self.transport.write(b"%r\n" % time.monotonic())

    def connectionLost(self, reason: object = None) -> None:
        if reactor.running:
            reactor.stop()


def main() -> None:
    home, trust_domain = Path(sys.argv[1]), TrustDomain("mesh.local")
    steady(reactor)
    out = (home / "server.log").open("w")
    globalLogBeginner.beginLoggingTo(
        [observe.TextObserver(out), monitoring.count], redirectStandardIO=False
    )
    log, registry = logger("server"), ConnectionRegistry()
    judge = Judge(wall_clock, Trust(allow=(SpiffePattern.parse(f"{trust_domain.id}/**"),)))
    contexts = ContextFactory(Role(serves=True))
    source = Given(home, trust_domain)
    trust = TrustStore(judge, registry, reactor, wall_clock, log)
    trust.startService()
    CertificateManager(source, trust, [contexts], reactor, wall_clock, log).startService()
    site = MeshSite(StatusResource(), reactor, Limits(idle_seconds=3600))
    security = Security(contexts, judge, reactor, registry, log)
    port: Any = None

    def listening(listener: Any) -> None:
        orders = Orders(trust)
        StandardIO(orders)
        orders.transport.write(b"%d\n" % listener.getHost().port)

    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
    port = listen(endpoint, site, security).addCallback(listening)
    assert port is not None
    reactor.run()


if __name__ == "__main__":
    main()
