"""The options of ``mesh-server``."""

from pathlib import Path
from typing import ClassVar

from pki.spiffe import SpiffePattern
from twisted_mesh.taps.ca_options import max_connections
from twisted_mesh.taps.identity_options import IdentityOptions


class Options(IdentityOptions):
    """Options of ``twistd mesh-server``."""

    program = "mesh-server"
    synopsis = "[options]\n\nExample: twistd -n mesh-server --listen 9443 --allow spiffe://mesh.local/service/payment-worker"
    longdesc = "An mTLS service: it gets its certificate from the CA, renews it, and serves proven callers only."
    default_id = ("service", "api-server")
    optParameters: ClassVar = [
        [
            "spiffe-id",
            None,
            None,
            "who we are (default spiffe://TD/service/api-server; with --source its default)",
        ],
        ["allow-file", None, None, "a file of more of --allow, one a line, read again at SIGHUP"],
        ["listen", None, "9443", "9443, host:9443, or a Twisted endpoint string"],
        ["max-connections", None, None, "open connections (default: what the system allows)"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["allow"] = []

    def opt_allow(self, pattern: str) -> None:
        """who may connect: a SPIFFE ID, * for one segment, ** for any rest (repeatable)"""
        self["allow"].append(SpiffePattern.parse(pattern))

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        self["allow-file"] = Path(self["allow-file"]) if self["allow-file"] else None
        self["max-connections"] = max_connections(self["max-connections"])
