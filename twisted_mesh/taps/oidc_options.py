"""``--oidc`` and what goes with it: where OpenID Connect finds the JWT keys, and by which certificate."""

import re
from pathlib import Path

from attrs import frozen

from pki.errors import Malformed, discreet
from twisted_mesh.http.address import split_url

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*", re.ASCII)
_UNIX = "unix:"


@frozen
class OidcOptions:
    """Where the keys are served."""

    address: str
    """``unix:PATH``, or a TCP address; then there are the next two."""
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(
        cls, address: str | None, issuer: str | None, certificate: str | None, key: str | None
    ) -> "OidcOptions | None":
        """None where nothing is to be served. Raises :class:`Malformed`."""
        if address is None:
            if certificate is not None or key is not None:
                raise Malformed("--oidc-cert and --oidc-key are for --oidc: say where to listen")
            return None
        if issuer is None:
            raise Malformed(
                "--oidc says whose keys it serves: give the URL where others find it, --oidc-issuer https://HOST"
            )
        if address.startswith(_UNIX):
            if certificate is not None or key is not None:
                raise Malformed(
                    "--oidc unix:PATH is for a web server in front, which has the certificate: leave --oidc-cert and "
                    "--oidc-key out"
                )
            return cls(address)
        if certificate is None or key is None:
            raise Malformed(
                f"--oidc {discreet(address, 80)} is TLS: give --oidc-cert and --oidc-key of a CA that the web trusts, "
                "or --oidc unix:PATH for a web server in front. There is no plaintext: whoever could change the keys "
                "on the way could sign for everybody"
            )
        return cls(address, Path(certificate), Path(key))


def issuer_url(text: str) -> str:
    """``--oidc-issuer``, as it stands in tokens to the letter. Raises :class:`Malformed`."""
    scheme, colon, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    # A port that is the usual one would make two names of one.
    if (
        (scheme, colon) != ("https", "://")
        or split_url(f"{scheme}://{host}", {"https": 443}) is None
        or host != host.lower()
        or host.endswith(":443")
        or not _PATH.fullmatch(slash + path)
    ):
        raise Malformed(
            f"--oidc-issuer {discreet(text, 100)} is no issuer: write https://HOST[:PORT][/PATH] in lower case, "
            "without a slash at the end, a query or the port 443. Others compare it letter by letter"
        )
    return text
