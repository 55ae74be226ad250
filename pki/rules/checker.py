"""Whether a tree means something, before it is evaluated: its types, its names, and what it can cost at most."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from attrs import evolve, frozen

from pki.rules.facts import LONGEST_LIST
from pki.rules.regex import pattern_cost
from pki.rules.schema import (
    BOOL,
    DURATION,
    FUNCTIONS,
    INPUT,
    INT,
    LIST,
    LIST_SIZE,
    METHODS,
    STRING,
    TEXT_SIZE,
    TIMESTAMP,
    UNKNOWN,
    Function,
    Size,
    Type,
)
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
from pki.rules.token import BadSyntax

#: What an expression, and all those together that are asked at once, may cost: tenths of a microsecond.
MOST_COSTLY = 400_000
#: Bytes of a text, and items of a list, that an expression makes.
_LARGEST = 16_384
#: A macro's own work for each item, and what it takes to put an item into a list that grows.
_TURN, _APPEND = 5, 3
#: Bytes of a text that are gone through in a tenth of a microsecond, where they are in no cache.
_BYTES = 300
#: Macros within one another.
_NESTED = 2
_NO_SIZE = Size()
_EQUAL = ("==", "!=")
_ORDERED = ("string", "int", "timestamp", "duration")


@frozen
class _Judged:
    """A part of an expression that was looked at."""

    type: Type
    size: Size = _NO_SIZE
    cost: int = 2


@frozen
class Checked:
    """What is known of an expression without evaluating it."""

    problems: tuple[BadSyntax, ...]
    cost: int
    """Tenths of a microsecond, at most."""
    reads: frozenset[str]
    """Paths of the input: ``request.spiffe_id``, ``selectors``."""
    trials: tuple[str, ...]
    """Expressions without variables that are part of it, and have a value or an error: patterns, times."""


def check(tree: Node) -> Checked:
    """All that is wrong with an expression, which is to be true or false."""
    checker = _Checker()
    judged = checker.judge(tree)
    checker.expects(tree, judged, BOOL, "a rule's condition")
    if judged.cost > MOST_COSTLY:
        checker.wrong(
            tree,
            f"the expression could take {judged.cost / 10_000:.0f} ms, and {MOST_COSTLY / 10_000:.0f} ms are allowed: "
            "use fewer lists within lists, `in` for one of them, and no map or filter within a macro",
        )
    return Checked(
        tuple(sorted(checker.problems, key=lambda problem: problem.at)),
        judged.cost,
        frozenset(checker.reads),
        tuple(checker.trials),
    )


class _Checker:
    def __init__(self) -> None:
        self.problems: list[BadSyntax] = []
        self.reads: set[str] = set()
        self.trials: list[str] = []
        self._bound: dict[str, _Judged] = {}

    def wrong(self, node: Node, detail: str) -> _Judged:
        self.problems.append(BadSyntax(node.at, detail))
        return _Judged(UNKNOWN)

    def expects(self, node: Node, judged: _Judged, wanted: Type, what: str) -> None:
        if judged.type not in (wanted, UNKNOWN):
            self.wrong(node, f"{what} is {_a(wanted)}, and this is {_a(judged.type)}")

    def judge(self, node: Node) -> _Judged:
        judge: Callable[[Node], _Judged] = getattr(self, f"_{type(node).__name__.lower()}")
        return judge(node)

    def _literal(self, node: Literal) -> _Judged:
        if isinstance(node.value, str):
            return _Judged(STRING, Size(len(node.value.encode("utf-8", "replace"))))
        return _Judged(BOOL if isinstance(node.value, bool) else INT)

    def _name(self, node: Name) -> _Judged:
        if node.name in self._bound:
            return self._bound[node.name]
        kind = INPUT.get(node.name)
        if kind is None:
            return self.wrong(node, _unknown("variable", node.name, [*INPUT, *self._bound]))
        if kind.members:
            members = ", ".join(f"{node.name}.{name}" for name in kind.members)
            return self.wrong(node, f"{node.name} is an object: name one of its members, {members}")
        self.reads.add(node.name)
        return _of_input(kind)

    def _member(self, node: Member) -> _Judged:
        if isinstance(node.operand, Name) and node.operand.name not in self._bound:
            variable = node.operand.name
            kind = INPUT.get(variable)
            if kind is None:
                return self._name(node.operand)
            if kind.members:
                if node.name not in kind.members:
                    return self.wrong(
                        node, _unknown(f"member of {variable}", node.name, list(kind.members))
                    )
                self.reads.add(f"{variable}.{node.name}")
                return _of_input(kind.members[node.name])
        operand = self.judge(node.operand)
        if operand.type is UNKNOWN:
            return operand
        return self.wrong(node, f"{_a(operand.type)} has no member {node.name[:40]}")

    def _index(self, node: Index) -> _Judged:
        operand, index = self.judge(node.operand), self.judge(node.index)
        self.expects(node.index, index, INT, "an index")
        if operand.type is UNKNOWN:
            return operand
        if operand.type.item is None:
            return self.wrong(node, f"{_a(operand.type)} has no items")
        return _Judged(operand.type.item, Size(operand.size.item), operand.cost + index.cost + 5)

    def _listof(self, node: ListOf) -> _Judged:
        items = [self.judge(item) for item in node.items]
        kinds = {item.type for item in items if item.type is not UNKNOWN}
        if len(kinds) > 1 or any(kind.name not in _ORDERED for kind in kinds):
            return self.wrong(
                node, "a list has texts, numbers, times or durations, and all are of one kind"
            )
        if len(items) > LONGEST_LIST:
            return self.wrong(node, f"a list has {LONGEST_LIST} items at most")
        size = Size(len(items), max((item.size.length for item in items), default=0))
        return _Judged(
            Type("list", next(iter(kinds), None)),
            size,
            sum(item.cost for item in items) + 2 + len(items),
        )

    def _unary(self, node: Unary) -> _Judged:
        operand = self.judge(node.operand)
        wanted = BOOL if node.operator == "!" else INT
        self.expects(node.operand, operand, wanted, f"what follows {node.operator}")
        return _Judged(wanted, cost=operand.cost + 2)

    def _chain(self, node: Chain) -> _Judged:
        cost = 0
        for operand in node.operands:
            judged = self.judge(operand)
            self.expects(operand, judged, BOOL, f"what stands beside {node.operator}")
            cost += judged.cost + 2
        return _Judged(BOOL, cost=cost)

    def _conditional(self, node: Conditional) -> _Judged:
        test, yes, no = self.judge(node.test), self.judge(node.yes), self.judge(node.no)
        self.expects(node.test, test, BOOL, "what stands before ?")
        if UNKNOWN not in (yes.type, no.type) and yes.type != no.type:
            return self.wrong(node, f"one side of : is {_a(yes.type)}, and the other {_a(no.type)}")
        size = Size(max(yes.size.length, no.size.length), max(yes.size.item, no.size.item))
        return _Judged(yes.type, size, test.cost + max(yes.cost, no.cost) + 2)

    def _binary(self, node: Binary) -> _Judged:
        left, right = self.judge(node.left), self.judge(node.right)
        cost = left.cost + right.cost + 3
        if node.operator == "in":
            return self._in(node, left, right, cost)
        if UNKNOWN in (left.type, right.type):
            return _Judged(BOOL if node.operator in (*_EQUAL, "<", "<=", ">", ">=") else UNKNOWN)
        if node.operator in _EQUAL:
            if _comparable(left.type, right.type):
                return _Judged(BOOL, cost=cost + _walking(left.size, right.size))
            return self._mismatch(node, left, right, "be compared")
        if node.operator in ("<", "<=", ">", ">="):
            if left.type == right.type and left.type.name in _ORDERED:
                return _Judged(BOOL, cost=cost + _walking(left.size, right.size))
            return self._mismatch(node, left, right, "be put in order")
        return self._arithmetic(node, left, right, cost)

    def _in(self, node: Binary, left: _Judged, right: _Judged, cost: int) -> _Judged:
        if UNKNOWN not in (left.type, right.type):
            if right.type.name != "list":
                self.wrong(node, f"what follows `in` is a list, and this is {_a(right.type)}")
            elif right.type.item not in (left.type, None):
                self.wrong(node, f"{_a(left.type)} is not in a {right.type}")
        return _Judged(BOOL, cost=cost + _walking(right.size))

    def _arithmetic(self, node: Binary, left: _Judged, right: _Judged, cost: int) -> _Judged:
        kinds = (left.type, right.type)
        if node.operator == "+" and kinds == (STRING, STRING):
            return self._made(
                node, _Judged(STRING, Size(left.size.length + right.size.length), cost + 5)
            )
        if (
            node.operator == "+"
            and left.type.name == right.type.name == "list"
            and _comparable(*kinds)
        ):
            size = Size(left.size.length + right.size.length, max(left.size.item, right.size.item))
            return self._made(node, _Judged(max(kinds, key=str), size, cost + 2 * size.length))
        results = {
            (INT, INT): INT,
            (TIMESTAMP, DURATION): TIMESTAMP,
            (DURATION, TIMESTAMP): TIMESTAMP if node.operator == "+" else UNKNOWN,
            (DURATION, DURATION): DURATION,
            (TIMESTAMP, TIMESTAMP): DURATION if node.operator == "-" else UNKNOWN,
        }
        result = results.get(kinds, UNKNOWN)
        if result is UNKNOWN or (result is not INT and node.operator not in "+-"):
            return self._mismatch(node, left, right, f"stand beside {node.operator}")
        return _Judged(result, cost=cost)

    def _made(self, node: Node, made: _Judged) -> _Judged:
        if made.size.length > _LARGEST:
            return self.wrong(node, f"what is put together here could be larger than {_LARGEST}")
        return evolve(made, cost=made.cost + _walking(made.size))

    def _mismatch(self, node: Node, left: _Judged, right: _Judged, what: str) -> _Judged:
        return self.wrong(node, f"{_a(left.type)} and {_a(right.type)} cannot {what}")

    def _call(self, node: Call) -> _Judged:
        if node.function == "has":
            return self._has(node)
        known, what = (FUNCTIONS, "function") if node.operand is None else (METHODS, "method")
        given = ([] if node.operand is None else [node.operand]) + list(node.arguments)
        judged = [self.judge(argument) for argument in given]
        choices = known.get(node.function)
        if choices is None:
            return self.wrong(node, _unknown(what, node.function, [*known, "has"]))
        if any(argument.type is UNKNOWN for argument in judged):
            return _Judged(choices[0].result)
        for choice in choices:
            if _takes(choice, judged):
                return self._called(node, choice, judged)
        wanted = " or ".join(", ".join(map(str, choice.arguments)) for choice in choices)
        found = ", ".join(str(argument.type) for argument in judged) or "nothing"
        return self.wrong(node, f"{node.function} is for {wanted}, and this is {found}")

    def _called(self, node: Call, function: Function, judged: list[_Judged]) -> _Judged:
        cost = sum(argument.cost for argument in judged) + function.cost
        cost += _walking(*(argument.size for argument in judged))
        if function.is_constant:
            constant = node.arguments[-1]
            if not (isinstance(constant, Literal) and isinstance(constant.value, str)):
                return self.wrong(
                    node, f"what {node.function} is given is a text that is written out"
                )
            if node.function == "matches":
                try:
                    cost += pattern_cost(constant.value, constant.at, judged[0].size.length)
                except BadSyntax as error:
                    return self.wrong(constant, error.detail)
                self.trials.append(f'"".matches({constant})')
            else:
                self.trials.append(str(node))
        return _Judged(function.result, Size(20) if function.result is STRING else Size(), cost)

    def _has(self, node: Call) -> _Judged:
        argument = node.arguments[0] if node.operand is None and len(node.arguments) == 1 else None
        if not isinstance(argument, Member):
            return self.wrong(node, "has is written like has(request.ttl)")
        self.judge(argument)
        return _Judged(BOOL, cost=5)

    def _macro(self, node: Macro) -> _Judged:
        over = self.judge(node.operand)
        if over.type is not UNKNOWN and over.type.name != "list":
            return self.wrong(node, f"{node.name} goes through a list, and this is {_a(over.type)}")
        if node.variable in INPUT:
            return self.wrong(
                node, f"{node.variable} is a variable of the input: call the item another name"
            )
        if node.variable in self._bound:
            return self.wrong(node, f"{node.variable} is the item of a macro around this one")
        if len(self._bound) == _NESTED:
            return self.wrong(node, f"more than {_NESTED} macros are within one another")
        with self._binding(node.variable, _Judged(over.type.item or UNKNOWN, Size(over.size.item))):
            bodies = [self.judge(body) for body in node.bodies]
        conditions = node.bodies[:-1] if node.name == "map" else node.bodies
        for condition, judged in zip(conditions, bodies, strict=False):
            self.expects(condition, judged, BOOL, f"the condition of {node.name}")
        turns = over.size.length
        cost = over.cost + turns * (sum(body.cost for body in bodies) + _TURN)
        if node.name not in ("map", "filter"):
            return _Judged(BOOL, cost=cost)
        item = (
            bodies[-1]
            if node.name == "map"
            else _Judged(over.type.item or UNKNOWN, Size(over.size.item))
        )
        if item.type is not UNKNOWN and item.type.name not in _ORDERED:
            return self.wrong(
                node,
                f"map makes a list of texts, numbers, times or durations, and not of {item.type}",
            )
        size = Size(turns, item.size.length)
        copied = item.size.length if node.name == "map" else 0
        return self._made(
            node,
            _Judged(
                Type("list", None if item.type is UNKNOWN else item.type),
                size,
                cost + (_APPEND + copied // _BYTES) * turns * turns,
            ),
        )

    @contextmanager
    def _binding(self, name: str, item: _Judged) -> Iterator[None]:
        self._bound[name] = item
        try:
            yield
        finally:
            del self._bound[name]


def _of_input(kind: Type) -> _Judged:
    if kind.name == "list":
        return _Judged(kind, LIST_SIZE, 4)
    return _Judged(kind, TEXT_SIZE if kind is STRING else Size(), 4)


def _walking(*sizes: Size) -> int:
    """Tenths of a microsecond to go through values of these sizes, to compare or to copy them."""
    return sum(
        size.length * (1 + size.item // _BYTES) if size.item else size.length // _BYTES
        for size in sizes
    )


def _comparable(left: Type, right: Type) -> bool:
    if left.name == right.name == "list":
        return left.item == right.item or None in (left.item, right.item)
    return left == right


def _takes(function: Function, given: list[_Judged]) -> bool:
    return len(given) == len(function.arguments) and all(
        argument.type == wanted or (wanted is LIST and argument.type.name == "list")
        for argument, wanted in zip(given, function.arguments, strict=True)
    )


def _a(kind: Type) -> str:
    return f"{'an' if kind.name[0] in 'aeiou' else 'a'} {kind}"


def _unknown(what: str, name: str, known: list[str]) -> str:
    likely = get_close_matches(name, known, 1)
    hint = (
        f"did you mean {likely[0]}?" if likely else f"there are {', '.join(dict.fromkeys(known))}"
    )
    return f"there is no {what} {name[:60]}: {hint}"
