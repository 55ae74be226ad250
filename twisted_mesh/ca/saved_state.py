"""What the CA says of a backup of itself: which archive it is, and by which key its audit log is verified."""

import re

from pki.errors import Malformed
from pki.keys.signature import SigningKey, signature_over

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: Nothing else that a CA signs begins like this: certificates, CRLs and OCSP responses are DER.
_HEAD = "twisted-mesh backup 1"


def statement(sha256: str, log_key: str) -> bytes:
    """What is signed: the digest of a manifest in hex, and the log's verifier (C2SP signed-note), or nothing.

    Raises :class:`pki.errors.Malformed` for a digest that is none.
    """
    if not _DIGEST.fullmatch(sha256):
        raise Malformed("the digest of a backup's manifest is 64 digits of hex, in lower case")
    return f"{_HEAD}\n{sha256}\n{log_key}\n".encode()


async def sign_backup(key: SigningKey, sha256: str, log_key: str) -> bytes:
    """The issuing CA's signature over :func:`statement`. Raises :class:`pki.errors.Malformed`."""
    return await signature_over(statement(sha256, log_key), key, key.public_key)
