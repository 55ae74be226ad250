"""``twistd mesh-ca`` and ``twistd mesh-server``: only names, so other twistds stay fast."""

from twisted.application.service import ServiceMaker

meshCA = ServiceMaker(
    "mesh-ca",
    "twisted_mesh.taps.ca",
    "The certificate authority of a mesh: issues, revokes and lists short-lived SPIFFE identities.",
    "mesh-ca",
)

meshServer = ServiceMaker(
    "mesh-server",
    "twisted_mesh.taps.server",
    "A service in a mesh: mutual TLS on both sides, with an identity that renews itself.",
    "mesh-server",
)
