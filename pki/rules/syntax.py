"""The trees of expressions, and their text: what the engine is given is written anew from the tree that was checked."""

from attrs import frozen


@frozen
class Node:
    """A part of an expression. ``str`` is CEL, with every part in parentheses that may need them."""

    at: int
    """Characters of the expression before it."""


@frozen
class Literal(Node):
    """A value: a truth, a whole number, or a text."""

    value: bool | int | str

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        return str(self.value) if isinstance(self.value, int) else quoted(self.value)


@frozen
class Name(Node):
    """A variable: of the input, or of a macro around it."""

    name: str

    def __str__(self) -> str:
        return self.name


@frozen
class Member(Node):
    """``operand.name``"""

    operand: Node
    name: str

    def __str__(self) -> str:
        return f"{self.operand}.{self.name}"


@frozen
class Index(Node):
    """``operand[index]``"""

    operand: Node
    index: Node

    def __str__(self) -> str:
        return f"{self.operand}[{self.index}]"


@frozen
class Call(Node):
    """``function(arguments)``, or ``operand.function(arguments)``."""

    function: str
    operand: Node | None
    arguments: tuple[Node, ...]

    def __str__(self) -> str:
        before = "" if self.operand is None else f"{self.operand}."
        return f"{before}{self.function}({', '.join(map(str, self.arguments))})"


@frozen
class Macro(Node):
    """``operand.name(variable, body)``: the body is evaluated for each item of a list."""

    name: str
    operand: Node
    variable: str
    bodies: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{self.operand}.{self.name}({', '.join((self.variable, *map(str, self.bodies)))})"


@frozen
class ListOf(Node):
    """``[items]``"""

    items: tuple[Node, ...]

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.items))}]"


@frozen
class Unary(Node):
    """``!operand`` or ``-operand``"""

    operator: str
    operand: Node

    def __str__(self) -> str:
        return f"({self.operator}{self.operand})"


@frozen
class Chain(Node):
    """Operands with the same ``&&`` or ``||`` between them: one level, however many they are."""

    operator: str
    operands: tuple[Node, ...]

    def __str__(self) -> str:
        return f"({f' {self.operator} '.join(map(str, self.operands))})"


@frozen
class Binary(Node):
    """``left operator right``, of what compares and computes."""

    operator: str
    left: Node
    right: Node

    def __str__(self) -> str:
        return f"({self.left} {self.operator} {self.right})"


@frozen
class Conditional(Node):
    """``test ? yes : no``"""

    test: Node
    yes: Node
    no: Node

    def __str__(self) -> str:
        return f"({self.test} ? {self.yes} : {self.no})"


def quoted(text: str) -> str:
    """A text as CEL reads it, in ASCII."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
