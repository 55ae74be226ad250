"""``--oidc``: the JWT keys by OpenID Connect Discovery 1.0, and nothing else."""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec
from twisted.internet.interfaces import IReactorTime

from pki.jwt_svid.algorithms import SIGNING_ALGORITHMS, alg_of
from twisted_mesh.ca.api.document_site import DocumentSite
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.limits.rate_limit import Rate

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/keys"
#: Shorter than a key is published before it signs: no cache misses one.
_HEADERS = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}


class Configuration(msgspec.Struct, frozen=True):
    """OpenID Provider Metadata (Discovery section 3), as far as tokens are verified by it: nobody logs in here."""

    issuer: str
    jwks_uri: str
    response_types_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    claims_supported: list[str]


class OidcSite(DocumentSite):
    """Two documents, below the path of the issuer's URL. Both are public."""

    def __init__(self, keys: JwtKeys, issuer: str, rate: Rate, clock: IReactorTime) -> None:
        super().__init__(rate, clock)
        self.keys = keys
        above = urlsplit(issuer).path
        self._documents = {above + CONFIGURATION: self._configuration, above + KEYS: self._keys}
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

    @property
    def documents(self) -> Mapping[str, Callable[[], Answer]]:
        """See :class:`DocumentSite`."""
        return self._documents

    def _configuration(self) -> Answer:
        return Answer(self._document, headers=_HEADERS)

    def _keys(self) -> Answer:
        """Each with its one algorithm, which OpenID Connect's readers hold a token to."""
        keys = [
            key.authority.to_jwk("sig", alg=alg_of(key.algorithm)) for key in self.keys.line.keys
        ]
        return Answer(msgspec.json.encode({"keys": keys}), headers=_HEADERS)
