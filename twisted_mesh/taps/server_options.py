"""The options of ``mesh-server``."""

from pathlib import Path
from typing import ClassVar

from pki.spiffe import SpiffePattern
from twisted_mesh.taps.allow_file import read_allowed
from twisted_mesh.taps.connection_options import max_connections
from twisted_mesh.taps.policy_options import PolicyOptions
from twisted_mesh.taps.worker_options import WORKERS


class Options(PolicyOptions):
    """Options of ``twistd mesh-server``."""

    program = "mesh-server"
    synopsis = "[options]\n\nExample: twistd -n mesh-server --listen 9443 --allow spiffe://mesh.local/service/payment-worker"
    longdesc = "An mTLS service: it gets its certificate from the CA, renews it, and serves proven callers only."
    default_id = ("service", "api-server")
    files = ("allow-file", *PolicyOptions.files)
    optParameters: ClassVar = [
        [
            "spiffe-id",
            None,
            None,
            "who we are (default spiffe://TD/service/api-server; with --source its default)",
        ],
        ["allow-file", None, None, "a file of more of --allow, one a line, read again at SIGHUP"],
        ["listen", None, "9443", "9443, host:9443, or a Twisted endpoint string"],
        WORKERS,
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
        most = self["max-connections"] = max_connections(self["max-connections"])
        if most is not None:
            # Of each worker's part too: it is refused before there are any.
            _ = max_connections(str(most // self["workers"]))
            self["max-connections"] = self.share(most)
        self["pins"] = self.read_pins()
        self["peer-policy"] = self.read_policy()

    def read_allow_file(self) -> tuple[SpiffePattern, ...]:
        """Who is named in ``--allow-file``, as it is now; nobody without it. Raises :class:`PkiError`."""
        if self["allow-file"] is None:
            return ()
        return read_allowed(self["allow-file"], self.text_of("allow-file"))
