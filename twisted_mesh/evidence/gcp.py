"""The identity token of the Compute Engine instance that this process runs on."""

import os
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from attrs import frozen
from zope.interface import implementer

from pki.errors import Malformed, discreet
from twisted_mesh.evidence.interface import AttestationData, IProver
from twisted_mesh.evidence.metadata import Metadata
from twisted_mesh.evidence.token_file import TokenFile, audience_for, token_data
from twisted_mesh.http.address import split_url

#: As Google's own libraries have it: a host, or host and port.
_VARIABLE, _USUAL = "GCE_METADATA_HOST", "metadata.google.internal"
_IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/identity"
_HEADERS = {"Metadata-Flavor": "Google"}


@implementer(IProver)
@frozen
class GcpProver:
    """Asks the metadata service for a token that is for this CA, says which instance it is, and has the challenge."""

    place: Metadata | TokenFile
    kind = "gcp"

    @classmethod
    def of(cls, file: str | None) -> Self:
        """``gcp``, or ``gcp:FILE`` with a token that was fetched. Raises :class:`pki.errors.Malformed`."""
        if file is not None:
            return cls(TokenFile(cls.kind, Path(file)))
        text = os.environ.get(_VARIABLE) or _USUAL
        url = split_url(f"http://{text}", {"http": 80})
        if url is None:
            raise Malformed(f"{_VARIABLE}={discreet(text, 60)!r} is no HOST or HOST:PORT")
        _, host, port = url
        return cls(Metadata(host, port))

    @property
    def where(self) -> str:
        """The file, or the metadata service's address."""
        return str(self.place)

    @property
    def wants_challenge(self) -> bool:
        """Whether it can be in the token."""
        return isinstance(self.place, Metadata)

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        """See :class:`IProver`."""
        if isinstance(self.place, TokenFile):
            return self.place.data()
        asked = urlencode({"audience": audience_for(trust_domain, challenge), "format": "full"})
        token = self.place.get(f"{_IDENTITY}?{asked}", _HEADERS)
        return token_data(self.kind, token.decode("utf-8", "replace"), self.where)
