"""The identity token of a job of a CI system, or of anybody else's for whom some issuer of OpenID Connect vouches."""

import os
import socket
import ssl
from pathlib import Path
from typing import Self
from urllib.parse import urlencode, urlsplit

import msgspec
from attrs import define, frozen
from zope.interface import implementer

from pki.errors import Malformed
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence
from twisted_mesh.evidence.metadata import Metadata
from twisted_mesh.evidence.token_file import TokenFile, audience_for, token_data
from twisted_mesh.http.address import split_url
from twisted_mesh.runtime.wire import Attempt

#: Where a job keeps its token in a variable, as GitLab's ``id_tokens`` have it.
TOKEN_VARIABLE = "MESH_ATTEST_TOKEN"  # noqa: S105 a name
#: Of GitHub Actions, for jobs with ``permissions: id-token: write``.
_URL_VARIABLE, _BEARER_VARIABLE = (
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Answer(msgspec.Struct):
    value: str


@frozen
class _Tls(Metadata):
    """The same over TLS, by the CAs that this machine believes."""

    def __str__(self) -> str:
        return f"https://{self.host}:{self.port}"

    def _connected(self, attempt: Attempt) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout=attempt.left)
        try:
            plain.settimeout(attempt.left)
            return ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


@frozen
class Actions:
    """What GitHub Actions gives a job to ask for its tokens by."""

    service: Metadata
    path: str
    """With a query, to which the audience is added."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`Malformed`."""
        url = urlsplit(text)
        origin = split_url(f"{url.scheme}://{url.netloc}", {"https": 443, "http": 80})
        if origin is None or (origin[0] == "http" and origin[1] not in _LOOPBACK):
            raise Malformed(f"{_URL_VARIABLE} is no https URL: it is set by GitHub Actions alone")
        scheme, host, port = origin
        service = _Tls(host, port) if scheme == "https" else Metadata(host, port)
        return cls(service, f"{url.path or '/'}?{url.query}")

    def __str__(self) -> str:
        return str(self.service)

    def data(self, audience: str) -> AttestationData:
        """Raises :class:`NoEvidence`."""
        bearer = os.environ.get(_BEARER_VARIABLE, "")
        asked = f"{self.path}&{urlencode({'audience': audience})}"
        answer = self.service.get(asked, {"Authorization": f"Bearer {bearer}"})
        try:
            token = msgspec.json.decode(answer, type=_Answer).value
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise NoEvidence(f"{self}: the answer has no token (value)") from None
        return token_data("oidc", token, str(self))


@define
class _Variable:
    """A token in the environment, which the job's system has put there once."""

    def __str__(self) -> str:
        return f"the variable {TOKEN_VARIABLE}"

    def data(self) -> AttestationData:
        return token_data("oidc", os.environ.get(TOKEN_VARIABLE, ""), str(self))


@implementer(IProver)
@frozen
class OidcProver:
    """From a file, from a variable, or from GitHub Actions, in this order: what is there first."""

    place: TokenFile | _Variable | Actions
    kind = "oidc"

    @classmethod
    def of(cls, file: str | None) -> Self:
        """``oidc``, or ``oidc:FILE``. Raises :class:`Malformed` where there is no token anywhere."""
        if file is not None:
            return cls(TokenFile(cls.kind, Path(file)))
        if os.environ.get(TOKEN_VARIABLE):
            return cls(_Variable())
        if url := os.environ.get(_URL_VARIABLE):
            return cls(Actions.parse(url))
        raise Malformed(
            f"--attest oidc: there is no token: name its file (oidc:FILE), set {TOKEN_VARIABLE}, or give the job of "
            "GitHub Actions the permission id-token: write"
        )

    @property
    def where(self) -> str:
        """The file, the variable, or the service's address."""
        return str(self.place)

    @property
    def wants_challenge(self) -> bool:
        """Whether it can be in the token."""
        return isinstance(self.place, Actions)

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        """See :class:`IProver`."""
        if isinstance(self.place, Actions):
            return self.place.data(audience_for(trust_domain, challenge))
        return self.place.data()
