"""``--federation``: our bundle for other trust domains (SPIFFE Federation section 5.2), and nothing else."""

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from pki.svid.bundle import TrustBundle
from twisted_mesh.ca.api.request import path_of
from twisted_mesh.ca.api.resource import AnsweringResource
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.rate_limit import Rate

#: Where it is, when nobody has said otherwise.
PATH = "/bundle"


class BundleSite(AnsweringResource):
    """One public document."""

    def __init__(
        self, bundle: Callable[[], TrustBundle], rate: Rate, clock: IReactorTime, path: str = PATH
    ) -> None:
        super().__init__()

    async def _reply(self, request: SiteRequest) -> Answer:
        raise NotImplementedError(path_of(request))
