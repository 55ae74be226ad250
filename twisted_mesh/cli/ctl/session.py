"""One run of ``mesh-ctl`` that asks a CA: an administrator's client, some work, an exit status."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from pki.errors import Malformed
from pki.spiffe import TrustDomain
from pki.validity import parse_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.client import CaClient
from twisted_mesh.cli.ctl.options import Reach
from twisted_mesh.cli.running import reactor, run
from twisted_mesh.identity.bootstrap import administrator_client

#: What a command does with a client of the CA: called once, it is the exit status that comes of it. It raises
#: :class:`PkiError` where the CA refuses or is away.
Work = Callable[[Administration], Awaitable[int]]


def administer(reach: Reach, work: Work) -> int:
    """Do ``work``; its exit status. What the CA says against it is told.

    Raises :class:`PkiError` for a ``reach`` that cannot be used, and :class:`click.Abort` on Ctrl-C.
    """
    administration = Administration(_client(reach))
    return run("mesh-ctl", lambda: work(administration))


def _client(reach: Reach) -> CaClient:
    timeout = parse_duration(reach.timeout).total_seconds()
    if not timeout:
        raise Malformed("--timeout is at least 1s")
    return administrator_client(
        reactor,
        reach.ca_url,
        reach.ca_file,
        reach.state,
        TrustDomain.parse(reach.trust_domain),
        ca_fingerprint=reach.ca_fingerprint,
        ca_user=reach.ca_user,
        svid=Path(reach.svid) if reach.svid else None,
        timeout=timeout,
    )
