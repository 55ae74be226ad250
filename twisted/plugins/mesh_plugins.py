"""``twistd mesh-ca`` and its like, and endpoint strings ``mesh:``: only names, so that other twistds stay fast."""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


class _Program(ServiceMaker):
    """One of ours: while it is loaded nobody looks for garbage, which takes a fifth of that time and finds none."""

    @property
    def options(self):
        from twisted_mesh.runtime import garbage

        garbage.seldom()
        return super().options


meshCA = _Program(
    "mesh-ca",
    "twisted_mesh.taps.ca",
    "The certificate authority of a mesh: issues, revokes and lists short-lived SPIFFE identities.",
    "mesh-ca",
)

meshAgent = _Program(
    "mesh-agent",
    "twisted_mesh.taps.agent",
    "Keeps an identity of a mesh as files, for programs that know nothing of it.",
    "mesh-agent",
)

meshCtLog = _Program(
    "mesh-ctlog",
    "twisted_mesh.taps.ctlog",
    "A log of the certificates that CAs issue: append-only, for everybody to read.",
    "mesh-ctlog",
)

meshProxy = _Program(
    "mesh-proxy",
    "twisted_mesh.taps.proxy",
    "A sidecar: carries connections of any program over mutual TLS, in, out, or both.",
    "mesh-proxy",
)

meshServer = _Program(
    "mesh-server",
    "twisted_mesh.taps.server",
    "A service in a mesh: mutual TLS on both sides, with an identity that renews itself.",
    "mesh-server",
)


meshSigner = _Program(
    "mesh-signer",
    "twisted_mesh.taps.signer",
    "Holds a CA's keys in a process of its own, and signs what its policy lets it.",
    "mesh-signer",
)

meshWitness = _Program(
    "mesh-witness",
    "twisted_mesh.taps.witness",
    "A witness of certificate transparency logs: cosigns what extends what it saw, keeps what contradicts that.",
    "mesh-witness",
)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _MeshServer:
    """``mesh:PORT`` for whoever listens; what it means is loaded when it is used."""

    prefix = "mesh"

    def parseStreamServer(self, reactor, *args, **kwargs):
        from twisted_mesh.endpoints import server_endpoint

        return server_endpoint(reactor, *args, **kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class _MeshClient:
    """``mesh:HOST:PORT:peer=ID`` for whoever connects."""

    prefix = "mesh"

    def parseStreamClient(self, reactor, *args, **kwargs):
        from twisted_mesh.endpoints import client_endpoint

        return client_endpoint(reactor, *args, **kwargs)


meshServerEndpoint = _MeshServer()
meshClientEndpoint = _MeshClient()
