"""What can be wrong, as data: a :class:`Problem` is one reason, a :class:`PkiError` carries them all."""

import re
from collections.abc import Iterable
from typing import ClassVar

from attrs import frozen
from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.x509 import (
    AttributeNotFound,
    DuplicateExtension,
    InvalidVersion,
    UnsupportedGeneralNameType,
)

from pki.codes import Code


def _panics() -> tuple[type[BaseException], ...]:
    """What a panic of cryptography's Rust arrives as. It is no Exception, and has no module to be imported from.

    PyO3 makes the class while cryptography is imported, which it is above.
    """
    return tuple(
        kind for kind in BaseException.__subclasses__() if kind.__name__ == "PanicException"
    )


#: A panic of cryptography's Rust.
PANICS = _panics()
#: What a guard of a callback or of a standing task catches: all that may come of foreign bytes, and no interrupt.
ANY_ERROR: tuple[type[BaseException], ...] = (Exception, *PANICS)
#: Everything that cryptography is known to raise on hostile DER. Its own documentation names
#: ValueError only; a handler that catches just that answers 500, and a panic is caught by no ``except Exception``.
HOSTILE_INPUT: tuple[type[BaseException], ...] = (
    *PANICS,
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
    UnsupportedAlgorithm,
    InvalidKey,
    InvalidVersion,
    DuplicateExtension,
    UnsupportedGeneralNameType,
    AttributeNotFound,
)


#: A line or more of base64, and letters and digits in one run, as names seldom have them.
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/])(?=[A-Za-z+/]*[0-9])(?=[a-z0-9+/]*[A-Z])[A-Za-z0-9+/]{24,}={0,2}"
)
_RUN = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{12,}")
#: What is left of it between other characters, where one such run was seen.
_PIECE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])|(?=[A-Za-z0-9]*[a-z][A-Z]))[A-Za-z0-9]{6,}"
)
#: A name and a password before the host of a URL.
_USER_INFO = re.compile(r"//[^/@\s]+@")
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/="
#: More of a text is not even looked at.
_LONGEST = 4000
_HEX = frozenset("0123456789abcdefABCDEF")


def printable(text: str, limit: int = 400) -> str:
    """``text`` as one line that is safe to show or log: no control characters, at most ``limit`` long.

    Names come from certificates and requests, that is, from strangers: a newline would forge a log
    line, an escape sequence would drive the reader's terminal.
    """
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def discreet(text: str, limit: int = 400) -> str:
    """:func:`printable`, without what may be a secret that was put where something else belongs.

    A token, a passphrase or a piece of a key is a long run of letters and digits; few names are. What is hex is
    shown: the serials, hashes and ids here are, and no secret is; and so are SPIFFE IDs, which the mesh tells anybody.
    """
    if text.startswith("spiffe://"):
        return printable(text, limit)
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rstrip(_ALPHABET) + "…"
    text = _USER_INFO.sub("//(not shown)@", text.replace("\0", ""))
    if not ("PRIVATE KEY" in text or _BASE64.search(text) or _RUN.search(text)):
        return printable(text, limit)
    return printable(_PIECE.sub(_hidden, _RUN.sub(_hidden, _BASE64.sub(_hidden, text))), limit)


def _hidden(run: re.Match[str]) -> str:
    found = run[0]
    return found if _HEX.issuperset(found) else f"({len(found)} characters, not shown)"


@frozen
class Problem:
    """One reason for a refusal."""

    code: Code
    """Stable name, the same in logs, metrics, JSON and on the command line: ``expired``."""
    detail: str
    """What was found: a sentence for people."""
    remedy: str = ""
    """What to do about it."""
    rule: str = ""
    """The rule that was broken, with its source: ``RFC 5280 section 4.1.2.5``."""
    subject: str = ""
    """What the problem is about: a certificate's subject, ``csr``, the name of a field."""

    def __str__(self) -> str:
        text = f"{self.code}: {self.detail}"
        return f"{text} ({self.remedy})" if self.remedy else text


class PkiError(Exception):
    """The root of every error that this toolkit raises on purpose.

    ``str(error)`` is one sentence for people that states what is wrong and what to do.
    """

    code: ClassVar[Code] = Code.MALFORMED

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every reason; at least one."""
        return (Problem(code=self.code, detail=str(self)),)


class Malformed(PkiError):
    """The input is not what it is said to be: it does not parse at all."""


class Refused(PkiError):
    """The input parses and breaks rules; ``problems`` lists each of them."""

    code = Code.REFUSED

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._problems = tuple(problems)
        if not self._problems:
            raise AssertionError("a refusal without a reason")
        super().__init__("; ".join(str(problem) for problem in self._problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every rule that is broken; at least one."""
        return self._problems
