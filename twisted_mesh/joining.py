"""How an endpoint reaches its CA: the options that say so, made into a client."""

from pathlib import Path
from typing import Any

from pki.bundle import BundleSet, TrustBundle
from pki.errors import Malformed
from pki.spiffe import SpiffePattern, TrustDomain
from twisted_mesh.ca_client import REQUEST_TIMEOUT, CaAddress, CaClient
from twisted_mesh.clock import wall_clock
from twisted_mesh.state import StateDirectory, read_file
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.transport import Security
from twisted_mesh.trust import Judge, Trust


def ca_client(
    reactor: Any,
    ca_url: str | None,
    ca_file: str | None,
    state_dir: Path,
    trust_domain: TrustDomain,
    *,
    timeout: float = REQUEST_TIMEOUT,
) -> CaClient:
    """The client for ``--ca-url`` and ``--ca-file``; without them, of the socket in the state directory.

    Raises :class:`PkiError` where they cannot be used.
    """
    address = (
        CaAddress.parse(ca_url)
        if ca_url
        else CaAddress("unix", str(StateDirectory(state_dir).socket))
    )
    security = None
    if address.scheme == "https":
        if ca_file is None:
            raise Malformed(
                f"{address}: whose root to believe is not known: name its root certificate with --ca-file"
            )
        bundle = TrustBundle.from_pem(trust_domain, read_file(Path(ca_file), "--ca-file"))
        security = ca_security(reactor, bundle)
    elif ca_file is not None:
        raise Malformed(f"--ca-file is for a CA at https://, not at {address}")
    return CaClient(reactor, address, security, timeout)


def ca_security(reactor: Any, bundle: TrustBundle) -> Security:
    """Demands that whoever answers is ``/mesh/ca`` under that root: no workload can pose as the CA."""
    ca_only = SpiffePattern.parse(str(bundle.trust_domain.member("mesh", "ca")))
    contexts = ContextFactory(Role(serves=False))
    contexts.replace(None, bundle.roots)
    judge = Judge(wall_clock, Trust(BundleSet.of(bundle), allow=(ca_only,)))
    return Security(contexts, judge, reactor)
