"""A server under measurement with a mesh of its own: it founds one, and writes what a caller needs into a directory.

``python -m tests.bench.own_server DIRECTORY http|stream SECONDS``: with ``http`` it is what mesh-server serves; with
``stream`` sixteen bytes that are a number get so many bytes back. Every so many seconds it has a new key and a new
certificate; 0 is never. The first line on its standard output is its port.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogBeginner

from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.x509svid import X509Svid, certificates_pem
from tests.bench.meshes import CLIENT_ID
from twisted_mesh import observe
from twisted_mesh.api.blocking_client import result_of
from twisted_mesh.http.server import Limits
from twisted_mesh.runtime.clock import steady, wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.server import MeshSite, StatusResource
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.endpoints import listen
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

reactor: Any = _reactor
FRAME = 16


class Streaming(Protocol):
    """A number of sixteen bytes gets so many bytes back."""

    transport: Any
    _asked = b""

    def dataReceived(self, data: bytes) -> None:
        self._asked += data
        while len(self._asked) >= FRAME:
            size, self._asked = int(self._asked[:FRAME]), self._asked[FRAME:]
            self.transport.write(bytes(size))


def _svid(issuing: Authority, spiffe_id: SpiffeId) -> X509Svid:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    draft = issuing.draft(key.public_key, spiffe_id, wall_clock(), timedelta(hours=1))
    return X509Svid.assemble((result_of(issuing.sign(draft)), *issuing.intermediates), key)


def main() -> None:
    home, kind, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    trust_domain, now = TrustDomain("mesh.local"), wall_clock()
    root = result_of(
        Authority.create_root(MemoryKey.generate(KeyAlgorithm.EC_P256), trust_domain, now)
    )
    issuing = result_of(
        root.create_issuing(MemoryKey.generate(KeyAlgorithm.EC_P256), trust_domain, now)
    )
    caller = _svid(issuing, SpiffeId.parse(CLIENT_ID))
    (home / "svid.pem").write_bytes(certificates_pem(caller.chain))
    (home / "svid_key.pem").write_bytes(caller.key.to_pem())
    (home / "svid_bundle.pem").write_bytes(certificates_pem([root.certificate]))

    steady(reactor)
    log = logger("server")
    out = (home / "server.log").open("w")
    globalLogBeginner.beginLoggingTo([observe.TextObserver(out)], redirectStandardIO=False)
    bundles = BundleSet.of(TrustBundle(trust_domain, (root.certificate,)))
    allowed = (SpiffePattern.parse(f"{trust_domain.id}/**"),)
    judge = Judge(wall_clock, Trust(bundles=bundles, allow=allowed))
    contexts = ContextFactory(Role(serves=True))

    def rotate() -> None:
        own = _svid(issuing, trust_domain.member("service", "api-server"))
        contexts.replace(own, bundles.all_roots)

    rotate()
    if seconds:
        _ = LoopingCall(rotate).start(seconds)
    serving: Any = MeshSite(StatusResource(), reactor, Limits(idle_seconds=3600))
    if kind == "stream":
        serving = Factory.forProtocol(Streaming)
    security = Security(contexts, judge, reactor, ConnectionRegistry(), log)
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
    listening = listen(endpoint, serving, security)
    _ = listening.addCallback(lambda port: print(port.getHost().port, flush=True))
    reactor.run()


if __name__ == "__main__":
    main()
