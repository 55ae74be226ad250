"""How an endpoint reaches its CA: the options that say so, made into a client."""

from pathlib import Path
from typing import Any

from pki.bundle import BundleSet, TrustBundle
from pki.errors import Malformed, PkiError
from pki.keys import MemoryKey
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid import X509Svid, load_certificates
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


def administrator_client(
    reactor: Any,
    ca_url: str | None,
    ca_file: str | None,
    state_dir: Path,
    trust_domain: TrustDomain,
    *,
    svid: Path | None = None,
    timeout: float = REQUEST_TIMEOUT,
) -> CaClient:
    """The same for an administrator, who over https proves itself by the exported identity in ``svid``.

    Its trust domain is then the CA's, and its bundle says whose root to believe unless ``ca_file`` does.
    """
    if svid is None:
        return ca_client(reactor, ca_url, ca_file, state_dir, trust_domain, timeout=timeout)
    if ca_url is None or CaAddress.parse(ca_url).scheme != "https":
        raise Malformed("--svid is for a CA at https://: name it with --ca-url")
    ours, bundle = exported(svid)
    client = ca_client(
        reactor,
        ca_url,
        ca_file or str(bundle),
        state_dir,
        ours.spiffe_id.trust_domain,
        timeout=timeout,
    )
    client.present(ours)
    return client


def exported(directory: Path) -> tuple[X509Svid, Path]:
    """The identity that ``mesh-client --export`` published, and the path of its bundle.

    Raises :class:`PkiError`, which names the file.
    """
    # One generation, whole, also if it is switched while we read.
    current = directory / "current"
    home = current.resolve() if current.is_symlink() else directory
    chain = load_certificates(read_file(home / "svid.pem", "--svid"), str(directory / "svid.pem"))
    try:
        key = MemoryKey.from_pem(read_file(home / "svid_key.pem", "--svid"))
        return X509Svid.assemble(chain, key), home / "svid_bundle.pem"
    except PkiError as error:
        raise Malformed(f"--svid {directory}: {error}") from None


def ca_security(reactor: Any, bundle: TrustBundle) -> Security:
    """Demands that whoever answers is ``/mesh/ca`` under that root: no workload can pose as the CA."""
    ca_only = SpiffePattern.parse(str(bundle.trust_domain.member("mesh", "ca")))
    contexts = ContextFactory(Role(serves=False))
    contexts.replace(None, bundle.roots)
    judge = Judge(wall_clock, Trust(BundleSet.of(bundle), allow=(ca_only,)))
    return Security(contexts, judge, reactor)
