"""Lists of keys that nobody may have: their own hashes, Debian's lists of weak keys, and badkeys' blocklist.

One text file may have, one a line, what follows a ``#`` being a remark:

- the SHA-256 of a SubjectPublicKeyInfo: 64 digits of hex, or ``sha256/BASE64`` as pins are written;
- twenty digits of hex as Debian's openssl-blacklist has them: the end of the SHA-1 of what
  ``openssl rsa -noout -modulus`` prints.

A binary file is badkeys' ``blocklist.dat``: records of 16 bytes in their order, each the first 15 of a SHA-256 (see
:func:`pki.keys.number_digest`) and one that says of which collection the key is.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Self

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.errors import Malformed, discreet
from pki.keys.algorithm import kind_of
from pki.keys.published import digest
from pki.keys.spki import spki_der

#: Bytes of a file: badkeys' has 60 million.
LARGEST_LIST = 256 * 1024 * 1024
_RECORD, _NUMBER, _DEBIAN = 16, 15, 10
_PIN = re.compile(r"sha256/([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
_OPENSSL = re.compile(r"[0-9a-f]{20}", re.ASCII | re.IGNORECASE)
#: So many records are compared with their neighbours at once.
_STRIDE = 65_536
_TOLD = 5


class BadKeyList(Malformed):
    """A list of keys cannot be used."""


@frozen
class KeyMarks:
    """What lists tell one key by."""

    spki: bytes
    """The SHA-256 of its SubjectPublicKeyInfo."""
    number: bytes = b""
    """:func:`pki.keys.number_digest`."""
    openssl: bytes = b""
    """As Debian's lists have it; of a key that is not RSA's it is in none."""

    @classmethod
    def of(cls, key: PublicKeyTypes, spki: bytes = b"") -> Self:
        """``spki`` is its SubjectPublicKeyInfo, where that is known."""
        told = hashlib.sha256(spki or spki_der(key)).digest()
        kind = kind_of(key)
        if kind is None:
            return cls(told)
        number = kind.number(key)
        modulus = number.hex().upper().lstrip("0")
        printed = hashlib.sha1(f"Modulus={modulus}\n".encode(), usedforsecurity=False).digest()
        return cls(told, digest(number), printed[_DEBIAN:])


@frozen(eq=False, repr=False)
class KeyList:
    """Digests of three kinds, each in one piece and in order: a set of Python's would take ten times the room."""

    name: str
    """The file, for people."""
    spki: bytes = b""
    openssl: bytes = b""
    numbers: bytes = b""

    @classmethod
    def parse(cls, name: str, data: bytes) -> Self:
        """Raises :class:`BadKeyList` with every line that is wrong, and for a list of nothing."""
        try:
            text = data.decode("ascii") if b"\0" not in data else None
        except UnicodeDecodeError:
            text = None
        found = cls._of_text(name, text) if text is not None else cls._of_records(name, data)
        if not len(found):
            raise BadKeyList(f"{name} lists no key: write hashes into it, or leave the option out")
        return found

    @classmethod
    def _of_text(cls, name: str, text: str) -> Self:
        spki: set[bytes] = set()
        openssl: set[bytes] = set()
        wrong = []
        for number, line in enumerate(text.splitlines(), 1):
            word = line.partition("#")[0].strip()
            if pin := _PIN.fullmatch(word):
                spki.add(base64.b64decode(pin[1]))
            elif _SHA256.fullmatch(word):
                spki.add(bytes.fromhex(word))
            elif _OPENSSL.fullmatch(word):
                openssl.add(bytes.fromhex(word))
            elif word:
                wrong.append(f"line {number}: {discreet(word, 40)!r}")
        if wrong:
            more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
            raise BadKeyList(
                f"{name}: {', '.join(wrong[:_TOLD])}{more}: a line is a key's SHA-256 (64 digits of hex, or "
                "sha256/BASE64), or 20 digits of hex as Debian's lists of weak keys have them"
            )
        return cls(name, b"".join(sorted(spki)), b"".join(sorted(openssl)))

    @classmethod
    def _of_records(cls, name: str, data: bytes) -> Self:
        """What is not in order is not found: it is refused, and so is a file that was cut short."""
        if len(data) % _RECORD:
            raise BadKeyList(
                f"{name} is neither text nor badkeys' blocklist.dat, whose records have {_RECORD} bytes: it may have "
                "been cut short; get it anew"
            )
        last = b""
        for start in range(0, len(data), _STRIDE * _RECORD):
            part = data[start : start + _STRIDE * _RECORD]
            records = [last, *(part[at : at + _RECORD] for at in range(0, len(part), _RECORD))]
            if records != sorted(records):
                raise BadKeyList(
                    f"{name} is neither text nor badkeys' blocklist.dat, whose records are in order: get it anew"
                )
            last = records[-1]
        return cls(name, numbers=data)

    def __len__(self) -> int:
        """How many keys it has."""
        return (
            len(self.spki) // hashlib.sha256().digest_size
            + len(self.openssl) // _DEBIAN
            + len(self.numbers) // _RECORD
        )

    @property
    def content(self) -> bytes:
        """A digest of all that is in it."""
        return hashlib.sha256(
            b"".join((self.spki, b"/", self.openssl, b"/", self.numbers))
        ).digest()

    def has(self, marks: KeyMarks) -> bool:
        """Whether it lists that key."""
        return (
            _is_among(self.spki, hashlib.sha256().digest_size, marks.spki)
            or _is_among(self.openssl, _DEBIAN, marks.openssl)
            or _is_among(self.numbers, _RECORD, marks.number)
        )


def listing(lists: Iterable[KeyList], marks: KeyMarks) -> str | None:
    """The name of the first list that has the key."""
    return next((each.name for each in lists if each.has(marks)), None)


def _is_among(records: bytes, size: int, wanted: bytes) -> bool:
    """Whether one of the records, which are in order and of one size, begins with what is wanted."""
    low, high = 0, len(records) // size if wanted else 0
    while low < high:
        middle = (low + high) // 2
        if records[middle * size : middle * size + len(wanted)] < wanted:
            low = middle + 1
        else:
            high = middle
    return bool(wanted) and records[low * size : low * size + len(wanted)] == wanted
