"""``--oidc``: the JWT keys by OpenID Connect Discovery 1.0, and nothing else."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IReactorTime

from pki.codes import Code
from pki.errors import PkiError
from pki.jwt_svid.algorithms import SIGNING_ALGORITHMS, alg_of
from twisted_mesh.ca.api.request import path_of
from twisted_mesh.ca.api.resource import AnsweringResource
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.http.json import BadRequest
from twisted_mesh.http.request import SiteRequest
from twisted_mesh.limits.rate_limit import Rate, TokenBuckets, address_key

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/keys"
#: Shorter than a key is published before it signs: no cache misses one.
_HEADERS = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}
_METHODS = ("GET", "HEAD")


class NotServed(BadRequest):
    """There is nothing at this path."""

    code = Code.NOT_FOUND


class WrongMethod(BadRequest):
    """What is there is read, and nothing else is done to it."""

    code = Code.METHOD_NOT_ALLOWED


class Configuration(msgspec.Struct, frozen=True):
    """OpenID Provider Metadata (Discovery section 3), as far as tokens are verified by it: nobody logs in here."""

    issuer: str
    jwks_uri: str
    response_types_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    claims_supported: list[str]


class OidcSite(AnsweringResource):
    """Two documents, below the path of the issuer's URL. Both are public."""

    def __init__(self, keys: JwtKeys, issuer: str, rate: Rate, clock: IReactorTime) -> None:
        super().__init__()
        self.keys = keys
        self._buckets = TokenBuckets(rate, clock.seconds)
        above = urlsplit(issuer).path
        self._answers = {above + CONFIGURATION: self._configuration, above + KEYS: self._keys}
        algorithms = [alg_of(algorithm) for algorithm in SIGNING_ALGORITHMS]
        self._document = msgspec.json.encode(
            Configuration(
                issuer,
                issuer + KEYS,
                ["id_token"],
                ["public"],
                [alg for alg in dict.fromkeys(algorithms) if alg is not None],
                ["iss", "sub", "aud", "iat", "exp", "jti"],
            )
        )

    async def _reply(self, request: SiteRequest) -> Answer:
        peer = request.channel.getPeer()
        if not isinstance(peer, UNIXAddress):  # a web server in front bounds its own callers
            self._buckets.charge(address_key(peer))
        answering = self._answers.get(path_of(request))
        if answering is None:
            raise NotServed(HTTPStatus.NOT_FOUND, f"there is nothing here but {self._paths}")
        method = request.method.decode("ascii", "replace")
        if method not in _METHODS:
            raise WrongMethod(HTTPStatus.METHOD_NOT_ALLOWED, "this is read by GET")
        return Answer(answering(), headers=_HEADERS)

    def _refused(
        self, request: SiteRequest, status: HTTPStatus, error: PkiError
    ) -> Mapping[str, str]:
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return {"allow": ", ".join(_METHODS)}
        return {}

    @property
    def _paths(self) -> str:
        return " and ".join(self._answers)

    def _configuration(self) -> bytes:
        return self._document

    def _keys(self) -> bytes:
        """Each with its one algorithm, which OpenID Connect's readers hold a token to."""
        return msgspec.json.encode(
            {
                "keys": [
                    key.authority.to_jwk("sig", alg=alg_of(key.algorithm))
                    for key in self.keys.line.keys
                ]
            }
        )
