"""From words to a tree: the part of CEL's grammar that expressions here may use, and no deeper than they may be."""

from typing import NoReturn

from pki.rules.syntax import (
    Binary,
    Call,
    Chain,
    Conditional,
    Index,
    ListOf,
    Literal,
    Macro,
    Member,
    Name,
    Node,
    Unary,
)
from pki.rules.token import RESERVED, BadSyntax, Token, TokenKind, tokens

#: Levels that a tree may have: the engine's own parser calls itself for each, on a stack that is not ours to grow.
DEEPEST = 24
#: Parts that a tree may have.
MOST_PARTS = 600
#: The macros that there are, and how many expressions follow their variable.
MACROS = {"all": (1,), "exists": (1,), "exists_one": (1,), "filter": (1,), "map": (1, 2)}
_INT64 = 2**63
_RELATIONS = ("==", "!=", "<", "<=", ">", ">=", "in")
_SUMS = ("+", "-")
_PRODUCTS = ("*", "/", "%")


def parse(text: str) -> Node:
    """The tree of an expression; raises :class:`~pki.rules.token.BadSyntax` with what is not allowed, and where."""
    parser = _Parser(tokens(text))
    tree = parser.expression()
    parser.end()
    return tree


class _Parser:
    def __init__(self, words: list[Token]) -> None:
        self._words = words
        self._next = 0
        self._level = 0
        self._parts = 0

    def expression(self) -> Node:
        self._down()
        test = self._chain("||")
        if self._symbol("?"):
            yes = self._chain("||")
            self._expect(":")
            no = self.expression()
            test = Conditional(test.at, test, yes, no)
        self._level -= 1
        return test

    def end(self) -> None:
        if self._word.kind is not TokenKind.END:
            self._wrong("an operator")

    @property
    def _word(self) -> Token:
        return self._words[self._next]

    def _down(self) -> None:
        self._level += 1
        if self._level > DEEPEST:
            raise BadSyntax(self._word.at, f"more than {DEEPEST} levels are in one another")

    def _part(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise BadSyntax(self._word.at, f"the expression has more than {MOST_PARTS} parts")

    def _take(self) -> Token:
        word = self._word
        self._next += 1
        self._part()
        return word

    def _symbol(self, *symbols: str) -> str | None:
        word = self._word
        is_symbol = word.kind is TokenKind.SYMBOL or (
            word.kind is TokenKind.NAME and word.text == "in"
        )
        if is_symbol and word.text in symbols:
            self._take()
            return word.text
        return None

    def _expect(self, symbol: str) -> None:
        if not self._symbol(symbol):
            self._wrong(repr(symbol))

    def _wrong(self, expected: str) -> NoReturn:
        word = self._word
        found = "the end" if word.kind is TokenKind.END else f"{word.text[:40]!a}"
        raise BadSyntax(word.at, f"{expected} is expected here, and not {found}")

    def _chain(self, operator: str) -> Node:
        operands = [self._operand_of(operator)]
        while self._symbol(operator):
            operands.append(self._operand_of(operator))
        return (
            operands[0] if len(operands) == 1 else Chain(operands[0].at, operator, tuple(operands))
        )

    def _operand_of(self, operator: str) -> Node:
        return self._chain("&&") if operator == "||" else self._relation()

    def _relation(self) -> Node:
        left = self._sum()
        if operator := self._symbol(*_RELATIONS):
            left = Binary(left.at, operator, left, self._sum())
            if self._symbol(*_RELATIONS):
                self._next -= 1
                raise BadSyntax(
                    self._word.at, "one comparison follows another: write && or parentheses"
                )
        return left

    def _sum(self) -> Node:
        return self._left_to_right(_SUMS)

    def _left_to_right(self, operators: tuple[str, ...]) -> Node:
        def operand() -> Node:
            return self._left_to_right(_PRODUCTS) if operators is _SUMS else self._unary()

        left, before = operand(), self._level
        while operator := self._symbol(*operators):
            self._down()
            left = Binary(left.at, operator, left, operand())
        self._level = before
        return left

    def _unary(self) -> Node:
        at = self._word.at
        if not (operator := self._symbol("!", "-")):
            return self._members()
        if operator == "-" and self._word.kind is TokenKind.NUMBER:
            return Literal(at, self._number(negative=True))
        self._down()
        operand = self._unary()
        self._level -= 1
        return Unary(at, operator, operand)

    def _members(self) -> Node:
        node, before = self._primary(), self._level
        while operator := self._symbol(".", "["):
            self._down()
            if operator == "[":
                node = Index(node.at, node, self.expression())
                self._expect("]")
                continue
            at, name = self._word.at, self._name()
            if not self._symbol("("):
                node = Member(at, node, name)
            elif name in MACROS:
                node = self._macro(at, name, node)
            else:
                node = Call(at, name, node, self._until(")"))
        self._level = before
        return node

    def _macro(self, at: int, name: str, operand: Node) -> Node:
        arguments = self._until(")")
        variable = arguments[0] if arguments else None
        if not isinstance(variable, Name) or len(arguments) - 1 not in MACROS[name]:
            raise BadSyntax(at, f"{name} is written like list.{name}(item, {_BODIES[name]})")
        return Macro(at, name, operand, variable.name, arguments[1:])

    def _primary(self) -> Node:
        word = self._word
        if word.kind is TokenKind.TEXT:
            return Literal(word.at, self._take().text)
        if word.kind is TokenKind.NUMBER:
            return Literal(word.at, self._number())
        if self._symbol("("):
            inner = self.expression()
            self._expect(")")
            return inner
        if self._symbol("["):
            return ListOf(word.at, self._until("]"))
        if word.kind is TokenKind.NAME and word.text in ("true", "false"):
            return Literal(word.at, self._take().text == "true")
        name = self._name()
        return (
            Call(word.at, name, None, self._until(")"))
            if self._symbol("(")
            else Name(word.at, name)
        )

    def _until(self, closing: str) -> tuple[Node, ...]:
        items: list[Node] = []
        if self._symbol(closing):
            return ()
        while True:
            items.append(self.expression())
            if self._symbol(closing):
                return tuple(items)
            self._expect(",")

    def _name(self) -> str:
        word = self._word
        if word.kind is not TokenKind.NAME:
            self._wrong("a value")
        if word.text in RESERVED or word.text in ("in", "true", "false", "null"):
            raise BadSyntax(word.at, f"{word.text} is a word of the language, and no name")
        return self._take().text

    def _number(self, negative: bool = False) -> int:
        word = self._take()
        digits = word.text
        # A number of thousands of digits would be refused by int itself, in other words.
        if (
            len(digits) > 20
            or int(digits, 0 if digits[:2] in ("0x", "0X") else 10) >= _INT64 + negative
        ):
            raise BadSyntax(word.at, "the number is larger than 2^63 - 1")
        value = int(digits, 0 if digits[:2] in ("0x", "0X") else 10)
        return -value if negative else value


_BODIES = {
    "all": "condition",
    "exists": "condition",
    "exists_one": "condition",
    "filter": "condition",
    "map": "value",
}
