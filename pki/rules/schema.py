"""The types of expressions, what the input has, and the functions that there are."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import get_args, get_origin

from attrs import field, frozen

from pki.rules.facts import LONGEST_ITEM, LONGEST_LIST, LONGEST_TEXT, Facts, shape_of


@frozen
class Type:
    """What a part of an expression is."""

    name: str
    item: "Type | None" = None
    """Of a list: what its items are; None while nothing is in it."""
    members: Mapping[str, "Type"] = field(factory=dict, eq=False, repr=False)
    """Of an object."""

    def __str__(self) -> str:
        return f"list of {self.item}" if self.item else self.name


BOOL = Type("bool")
INT = Type("int")
STRING = Type("string")
TIMESTAMP = Type("timestamp")
DURATION = Type("duration")
LIST = Type("list")
STRINGS = Type("list", STRING)
#: What a part is that is already wrong: it is not wrong again.
UNKNOWN = Type("unknown")


@frozen
class Size:
    """How large a value may become: characters of a text, items of a list and what each item has."""

    length: int = 0
    item: int = 0


TEXT_SIZE = Size(LONGEST_TEXT)
LIST_SIZE = Size(LONGEST_LIST, LONGEST_ITEM)


@frozen
class Function:
    """A function, or a method of the type that is its first argument."""

    result: Type
    arguments: tuple[Type, ...]
    cost: int
    """In tenths of a microsecond, as measured, and rounded up."""
    is_constant: bool = False
    """Whether its last argument is written out, so that it is tried when the policy is read."""


def _type_of(kind: object) -> Type:
    if get_origin(kind) is tuple:
        return Type("list", _type_of(get_args(kind)[0]))
    simple = {str: STRING, int: INT, bool: BOOL, datetime: TIMESTAMP}
    if kind in simple:
        return simple[kind]
    if not isinstance(kind, type):
        raise AssertionError(f"{kind} is no type of the input")
    return Type(
        kind.__name__.removesuffix("Facts").lower(),
        members={name: _type_of(member) for name, member in shape_of(kind).items()},
    )


#: The variables of an expression.
INPUT: Mapping[str, Type] = MappingProxyType(
    {name: _type_of(kind) for name, kind in shape_of(Facts).items()}
)

#: Functions by name: size(x), string(x), timestamp("…"), duration("…").
FUNCTIONS: Mapping[str, tuple[Function, ...]] = MappingProxyType(
    {
        "size": (Function(INT, (STRING,), 10), Function(INT, (LIST,), 10)),
        "string": (Function(STRING, (INT,), 10),),
        "timestamp": (Function(TIMESTAMP, (STRING,), 20, is_constant=True),),
        "duration": (Function(DURATION, (STRING,), 20, is_constant=True),),
    }
)
_OF_TIME = ("getHours", "getMinutes", "getSeconds", "getMilliseconds")
_OF_DATE = ("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear")
#: Methods by name: text.startsWith("…").
METHODS: Mapping[str, tuple[Function, ...]] = MappingProxyType(
    {
        "size": FUNCTIONS["size"],
        "startsWith": (Function(BOOL, (STRING, STRING), 10),),
        "endsWith": (Function(BOOL, (STRING, STRING), 10),),
        "contains": (Function(BOOL, (STRING, STRING), 60),),
        "matches": (Function(BOOL, (STRING, STRING), 200, is_constant=True),),
        **{name: (Function(INT, (TIMESTAMP,), 10),) for name in _OF_DATE},
        **{
            name: (Function(INT, (TIMESTAMP,), 10), Function(INT, (DURATION,), 10))
            for name in _OF_TIME
        },
    }
)
