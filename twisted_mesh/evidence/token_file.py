"""Tokens as evidence: from a file that a platform or a job writes, and for whom they are to be."""

import os
import re
from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import Malformed, discreet
from twisted_mesh.evidence.interface import AttestationData, NoEvidence
from twisted_mesh.state.directory import read_file

#: Whom tokens are asked for; as the CA's attestors file has it.
AUDIENCE_VARIABLE = "MESH_ATTEST_AUDIENCE"
_LARGEST = 16 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}", re.ASCII)


def token_data(kind: str, text: str, where: str) -> AttestationData:
    """A token as evidence of that kind. Raises :class:`NoEvidence` for what is none; nothing of it is shown."""
    token = text.strip()
    if not _TOKEN.fullmatch(token) or len(token) > _LARGEST:
        raise NoEvidence(f"{where}: this is no token (three parts of base64url between dots)")
    return AttestationData(kind, msgspec.json.encode(token))


def audience_for(trust_domain: str, challenge: str | None) -> str:
    """Whom a token is asked for: as the environment says, or the CA's trust domain; with the CA's challenge in it."""
    audience = os.environ.get(AUDIENCE_VARIABLE) or f"spiffe://{trust_domain}"
    if not audience.isascii() or not audience.isprintable():
        raise Malformed(f"{AUDIENCE_VARIABLE}={discreet(audience, 60)!r} is no audience")
    return audience if challenge is None else f"{audience}?nonce={challenge}"


@frozen
class TokenFile:
    """A file with a token, which is read each time anew: whoever writes it writes it again."""

    kind: str
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def data(self) -> AttestationData:
        """Raises :class:`NoEvidence`, and :class:`~twisted_mesh.state.directory.StateError`."""
        found = read_file(self.path, f"--attest {self.kind}:", _LARGEST)
        return token_data(self.kind, found.decode("utf-8", "replace"), str(self.path))
