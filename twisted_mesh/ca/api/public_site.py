"""``--crl-http``: signed data in plain HTTP, as RFC 5280 expects it, and nothing else."""

from http import HTTPStatus

from twisted.internet.interfaces import IReactorTime

from pki.codes import Code
from twisted_mesh.ca.api import published
from twisted_mesh.ca.api.request import path_of, refuse_other_media
from twisted_mesh.ca.api.resource import AnsweringResource
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.json import BadRequest
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.rate_limit import Rate, TokenBuckets, address_key

_OCSP = "/ocsp"


class NotServed(BadRequest):
    """There is nothing at this path."""

    code = Code.NOT_FOUND


class PublicSite(AnsweringResource):
    """CRLs, OCSP answers and issuers' certificates. Callers are known by their network, and limited by it."""

    def __init__(self, ca: CaParts, rate: Rate, clock: IReactorTime) -> None:
        super().__init__()
        self.ca = ca
        self._buckets = TokenBuckets(rate, clock.seconds)

    async def _reply(self, request: SiteRequest) -> Answer:
        who = address_key(request.channel.getPeer())
        self._buckets.charge(who)
        method, path = request.method.decode("ascii", "replace"), path_of(request)
        if method == "POST" and path == _OCSP:
            refuse_other_media(request, published.OCSP_REQUEST)
            body = request.body
            return await published.ocsp(self.ca, body, who)
        if method in ("GET", "HEAD"):
            if path.startswith(f"{_OCSP}/"):
                return await published.ocsp_in_path(self.ca, path.removeprefix(f"{_OCSP}/"), who)
            above, _, name = path.rpartition("/")
            if path == "/crl" or above == "/crl":
                return await published.crl(self.ca, name if above else None)
            if path == "/crls":
                return await published.crls_in_pem(self.ca)
            if path == "/issuer" or above == "/issuer":
                return await published.issuer(self.ca, name if above else None)
        raise NotServed(
            HTTPStatus.NOT_FOUND, "there is nothing here but /crl, /crls, /ocsp and /issuer"
        )
