"""One expression in CEL: checked by us, compiled by the engine, evaluated to true or false.

The engine cannot be interrupted, and its parser calls itself for each level. So nothing reaches it that was not read,
typed and found cheap here before, and what reaches it is written anew from what was read.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

from attrs import define

from pki.codes import Code
from pki.errors import Problem, discreet
from pki.rules.checker import Checked, check
from pki.rules.errors import BadPolicy, PolicyUnavailable
from pki.rules.parser import parse
from pki.rules.token import BadSyntax

#: Why an expression is refused, for people.
_RULE = "docs/POLICY.md"


class _Program(Protocol):
    def execute(self, context: Any) -> object: ...


@define(eq=False, repr=False)
class Expression:
    """A condition over the input."""

    text: str
    """As it was written."""
    reads: frozenset[str]
    """Paths of the input that it reads: ``request.spiffe_id``, ``selectors``."""
    cost: int
    """What an evaluation takes at most, in tenths of a microsecond, by measures of its parts."""
    _program: _Program

    @classmethod
    def compile(cls, text: str) -> "Expression":
        """Raises :class:`~pki.rules.errors.BadPolicy` with every problem and its place."""
        try:
            tree = parse(text)
        except BadSyntax as error:
            raise BadPolicy([_problem(text, error)]) from None
        checked = check(tree)
        if checked.problems:
            raise BadPolicy([_problem(text, problem) for problem in checked.problems])
        cel = engine()
        try:
            for trial in checked.trials:
                cel.compile(trial).execute({})
            program = cel.compile(str(tree))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the engine is no Exception
            raise BadPolicy([_problem(text, BadSyntax(0, _words(error)))]) from None
        return cls(text, checked.reads, checked.cost, program)

    def holds(self, context: Any) -> bool:
        """Whether it is true of a :func:`context`; raises :class:`~pki.rules.errors.PolicyUnavailable` for an error."""
        try:
            result = self._program.execute(context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise PolicyUnavailable("", _words(error)) from None
        if result is True or result is False:
            return result
        raise PolicyUnavailable(
            "", f"the result is {type(result).__name__}, and neither true nor false"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text[:80]!r}>"


def check_expression(text: str) -> Checked:
    """What is known of an expression without the engine; raises BadPolicy where it cannot be read."""
    try:
        return check(parse(text))
    except BadSyntax as error:
        raise BadPolicy([_problem(text, error)]) from None


def context(variables: Mapping[str, Any]) -> Any:
    """Variables as the engine takes them, once for all expressions that are asked together."""
    try:
        return engine().Context(variables=dict(variables))
    except (KeyboardInterrupt, SystemExit, BadPolicy):
        raise
    except BaseException as error:
        raise PolicyUnavailable("", _words(error)) from None


def engine() -> ModuleType:
    """The engine, imported once somebody has a policy; raises BadPolicy where it is not installed."""
    try:
        import cel
    except ImportError:
        raise BadPolicy(
            [
                Problem(
                    Code.BAD_POLICY,
                    "rules in CEL need common-expression-language, which is not installed",
                    remedy="pip install 'twisted-mesh[policy]'",
                )
            ]
        ) from None
    return cel


def _problem(text: str, error: BadSyntax) -> Problem:
    line = text.count("\n", 0, error.at) + 1
    column = error.at - (text.rfind("\n", 0, error.at) + 1) + 1
    return Problem(Code.BAD_POLICY, f"line {line}, column {column}: {error.detail}", rule=_RULE)


def _words(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return discreet(f"{type(error).__name__}: {first}", 200)
