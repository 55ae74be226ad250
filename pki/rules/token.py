"""The words of an expression (CEL's lexis), cut from its text without the engine."""

import re
from enum import Enum, auto

from attrs import frozen

#: Characters of one expression: what is longer is not even cut into words.
LONGEST_EXPRESSION = 4096
#: Of CEL's grammar: none of them is a name.
RESERVED = frozenset(
    (
        *(
            "as",
            "break",
            "const",
            "continue",
            "else",
            "for",
            "function",
            "if",
            "import",
            "let",
            "loop",
        ),
        *("package", "namespace", "return", "var", "void", "while"),
    )
)
_WORD = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+", re.ASCII)
_SYMBOL = re.compile(r"&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]]")
_SPACE = re.compile(r"(?:[ \t\r\n\f]|//[^\n]*)+")
_QUOTED = re.compile(
    r"""(?P<raw>[rR]?)(?:'''(?P<a>(?:\\.|[^\\])*?)'''|\"\"\"(?P<b>(?:\\.|[^\\])*?)\"\"\""""
    r"""|'(?P<c>(?:\\.|[^\\'\r\n])*)'|"(?P<d>(?:\\.|[^\\"\r\n])*)")""",
    re.DOTALL,
)
#: A raw text ends at its first quotation mark.
_RAW = re.compile(
    r"""[rR](?:'''(?P<a>.*?)'''|\"\"\"(?P<b>.*?)\"\"\"|'(?P<c>[^'\r\n]*)'|"(?P<d>[^"\r\n]*)")""",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"""\\(?:(?P<one>[abfnrtv\\?"'`])|[xX](?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"""
    r"""|U(?P<U>[0-9a-fA-F]{8})|(?P<o>[0-3][0-7]{2})|(?P<bad>.?))""",
    re.DOTALL,
)
_ONE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class TokenKind(Enum):
    """What a word of an expression is."""

    NAME = auto()
    NUMBER = auto()
    TEXT = auto()
    SYMBOL = auto()
    END = auto()


@frozen
class Token:
    """One word, and where it begins."""

    kind: TokenKind
    text: str
    """As it is written; of a text what it stands for, without quotation marks and escapes."""
    at: int
    """Characters before it."""


class BadSyntax(Exception):
    """The text is no expression, as far as expressions go here. It does not leave :mod:`pki.rules`."""

    def __init__(self, at: int, detail: str) -> None:
        self.at, self.detail = at, detail
        super().__init__(detail)


def tokens(text: str) -> list[Token]:
    """The words of an expression, an END last; raises :class:`BadSyntax`."""
    if len(text) > LONGEST_EXPRESSION:
        raise BadSyntax(
            0, f"the expression has {len(text)} characters: {LONGEST_EXPRESSION} are allowed"
        )
    found: list[Token] = []
    at = 0
    while True:
        if space := _SPACE.match(text, at):
            at = space.end()
        if at == len(text):
            return [*found, Token(TokenKind.END, "", at)]
        token, at = _one(text, at)
        found.append(token)


def _one(text: str, at: int) -> tuple[Token, int]:
    if match := _RAW.match(text, at) or _QUOTED.match(text, at):
        inner = next(group for group in match.group("a", "b", "c", "d") if group is not None)
        raw = text[at] in "rR"
        return Token(TokenKind.TEXT, inner if raw else _unescaped(inner, at), at), match.end()
    for kind, pattern in (
        (TokenKind.NAME, _WORD),
        (TokenKind.NUMBER, _NUMBER),
        (TokenKind.SYMBOL, _SYMBOL),
    ):
        if match := pattern.match(text, at):
            end = match.end()
            if kind is TokenKind.NAME and text[end : end + 1] in ("'", '"'):
                raise BadSyntax(at, "there are texts and raw texts (r'…'), and no bytes")
            if kind is TokenKind.NUMBER and (word := re.match(r"[.\w]+", text[end:])):
                raise BadSyntax(
                    at,
                    f"{match[0]}{word[0][:20]} is no number: whole numbers only, as 3600 or 0x0f",
                )
            return Token(kind, match[0], at), end
    if text[at] in "'\"":
        raise BadSyntax(at, "the text that begins here has no end")
    hint = {
        "=": ": equality is ==",
        "&": ": and is &&",
        "|": ": or is ||",
        "{": ": there are no maps",
    }
    raise BadSyntax(at, f"{text[at]!a} has no meaning here{hint.get(text[at], '')}")


def _unescaped(inner: str, at: int) -> str:
    def character(match: re.Match[str]) -> str:
        if (one := match["one"]) is not None:
            return _ONE.get(one, one)
        digits = match["x"] or match["u"] or match["U"]
        number = int(digits, 16) if digits else int(match["o"], 8) if match["o"] else -1
        if number < 0:
            raise BadSyntax(
                at, f"\\{match['bad']} is no escape of a text: write \\\\, or a raw text r'…'"
            )
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise BadSyntax(at, f"{match[0]} is no character")
        return chr(number)

    return _ESCAPE.sub(character, inner)
