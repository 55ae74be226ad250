"""Join tokens: a secret that buys one certificate, once, within minutes.

The CA keeps the SHA-256 of a token and nothing that it could be made from: 160 random bits need no
salt and no slow hash. The last characters are a check, so that a token that was cut short or
mistyped is told from one that nobody knows.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b32encode
from datetime import timedelta
from typing import Self

from attrs import field, frozen

from pki.codes import Code
from pki.errors import Malformed

#: How long a token may be used unless its maker says otherwise, and the most that can be said.
LIFETIME = timedelta(minutes=10)
MAX_LIFETIME = timedelta(days=7)

_PREFIX = "mj1_"
_SECRET_BYTES = 20
_CHECK_BYTES = 5
_TOKEN = re.compile(rf"{_PREFIX}([a-z2-7]{{32}})([a-z2-7]{{8}})", re.ASCII)
_ID_DIGITS = 12


class BadToken(Malformed):
    """The text is no join token: cut short, mistyped, or something else."""

    code = Code.BAD_TOKEN


@frozen
class JoinToken:
    """A token as its bearer has it. ``JoinToken.parse(x.text) == x``; its ``repr`` shows no secret."""

    text: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A fresh token, which nobody guesses."""
        secret = _written(secrets.token_bytes(_SECRET_BYTES))
        return cls(f"{_PREFIX}{secret}{_check(secret)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`BadToken`, which does not repeat the text."""
        match = _TOKEN.fullmatch(text)
        if match is None or not hmac.compare_digest(_check(match[1]), match[2]):
            raise BadToken(
                f"this is no whole join token: copy all of it, from {_PREFIX} to its end, as mesh-ctl token create "
                "printed it"
            )
        return cls(text)

    @property
    def digest(self) -> bytes:
        """Its SHA-256: what the CA keeps."""
        return hashlib.sha256(self.text.encode("ascii")).digest()

    @property
    def id(self) -> str:
        """What it is called where it must not be shown."""
        return token_id(self.digest)

    def is_one(self, digest: bytes) -> bool:
        """Whether ``digest`` is of this token, in a time that tells nothing."""
        return hmac.compare_digest(self.digest, digest)


def token_id(digest: bytes) -> str:
    """The name of the token with that SHA-256: 12 digits of hex, which are not secret."""
    return digest.hex()[:_ID_DIGITS]


def _check(secret: str) -> str:
    return _written(hashlib.sha256(secret.encode("ascii")).digest()[:_CHECK_BYTES])


def _written(data: bytes) -> str:
    return b32encode(data).decode("ascii").lower()
