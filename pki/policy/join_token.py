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
_LENGTH = len(_PREFIX) + 32 + 8
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_ID_DIGITS = 12
_ID = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}", re.ASCII)


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
                f"this is no whole join token ({_lack(text)}): copy all of it, from {_PREFIX} to its end, as mesh-ctl "
                "token create printed it"
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


def _lack(text: str) -> str:
    """What keeps ``text`` from being a token, without a piece of it."""
    if not text:
        return "there is nothing"
    if _ID.fullmatch(text):
        return "it is the id of a token, which anybody may see, and not the token"
    if not text.startswith(_PREFIX):
        if text.lower().startswith(_PREFIX):
            return "its letters have become capitals"
        where = "it begins elsewhere" if _PREFIX in text else "there is none in it"
        return f"it does not begin with {_PREFIX}: {where}"
    if len(text) > _LENGTH:
        return f"it is {len(text)} characters long and a token has {_LENGTH}"
    if any(letter.isspace() for letter in text):
        return "there are blanks in it"
    if not _ALPHABET.issuperset(text[len(_PREFIX) :]):
        return "there are characters in it that no token has: only small letters and the digits from 2 to 7"
    if len(text) < _LENGTH:
        return f"{len(text)} of {_LENGTH} characters are there"
    return (
        f"all {_LENGTH} characters are there, and not all of them are right: its check does not fit"
    )


def token_id(digest: bytes) -> str:
    """The name of the token with that SHA-256: 12 digits of hex, which are not secret."""
    return digest.hex()[:_ID_DIGITS]


def _check(secret: str) -> str:
    return _written(hashlib.sha256(secret.encode("ascii")).digest()[:_CHECK_BYTES])


def _written(data: bytes) -> str:
    return b32encode(data).decode("ascii").lower()
