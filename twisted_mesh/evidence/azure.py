"""The token of the managed identity of the Azure resource that this process runs on."""

import os
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import msgspec
from attrs import frozen
from zope.interface import implementer

from pki.errors import Malformed
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence
from twisted_mesh.evidence.metadata import Metadata
from twisted_mesh.evidence.token_file import (
    AUDIENCE_VARIABLE,
    TokenFile,
    audience_for,
    token_data,
)

_VARIABLE, _USUAL = "AZURE_METADATA_ENDPOINT", "http://169.254.169.254"
#: Which of several identities that people have assigned, as Azure's own libraries have it.
_CLIENT_VARIABLE = "AZURE_CLIENT_ID"
_TOKEN, _VERSION = "/metadata/identity/oauth2/token", "2018-02-01"
_HEADERS = {"Metadata": "true"}


class _Answer(msgspec.Struct):
    access_token: str


@implementer(IProver)
@frozen
class AzureProver:
    """Asks the instance metadata service for a token for the application that stands for this CA."""

    place: Metadata | TokenFile
    kind = "azure"
    wants_challenge = False

    @classmethod
    def of(cls, file: str | None) -> Self:
        """``azure``, or ``azure:FILE`` with a token that was fetched. Raises :class:`Malformed`."""
        if file is not None:
            return cls(TokenFile(cls.kind, Path(file)))
        if not os.environ.get(AUDIENCE_VARIABLE):
            raise Malformed(
                f"--attest azure: set {AUDIENCE_VARIABLE} to the ID of the application that is registered for this CA, "
                "as its attestors file has it (audience)"
            )
        return cls(Metadata.named(_VARIABLE, _USUAL))

    @property
    def where(self) -> str:
        """The file, or the metadata service's address."""
        return str(self.place)

    def prove(self, challenge: str | None, key: bytes, trust_domain: str) -> AttestationData:
        """See :class:`IProver`. No token of Azure's can carry a challenge."""
        if isinstance(self.place, TokenFile):
            return self.place.data()
        asked = {"api-version": _VERSION, "resource": audience_for(trust_domain, None)}
        if client := os.environ.get(_CLIENT_VARIABLE):
            asked["client_id"] = client
        found = self.place.get(f"{_TOKEN}?{urlencode(asked)}", _HEADERS)
        return token_data(self.kind, access_token(found, self.where), self.where)


def access_token(answer: bytes, where: str) -> str:
    """Of the answer of a token endpoint (RFC 6749 section 5.1). Raises :class:`NoEvidence`."""
    try:
        return msgspec.json.decode(answer, type=_Answer).access_token
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise NoEvidence(f"{where}: the answer has no access_token") from None
