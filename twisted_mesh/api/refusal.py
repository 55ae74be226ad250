"""What a CA says no with: a problem document, and the error that is made of it."""

import json
from collections.abc import Sequence

from attrs import evolve

from pki.codes import Code
from pki.errors import PkiError, Problem, Refused, printable


class CaRefused(PkiError):
    """The CA answered no; ``problems`` are its reasons and ``status`` the HTTP status."""

    code = Code.CA_REFUSED

    def __init__(self, status: int, problems: Sequence[Problem]) -> None:
        self.status = status
        self._problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The CA's reasons, or that it gave none."""
        return self._problems


#: What to do where the root in the options leads to the CA no more.
REJOIN = "start it with a new join line, which mesh-ctl token create prints on the CA's machine"
#: How the detail of such a refusal ends: with the rule, as that of all.
_RENEW_FIRST = "(rule renew-first)"
_OTHER_ROOT = (Code.WRONG_FINGERPRINT, Code.UNKNOWN_AUTHORITY, Code.INCOMPLETE_CHAIN)


def must_renew_first(error: PkiError) -> bool:
    """Whether the CA says no for the moment: what issued the caller's certificate is revoked, and it gets another."""
    return isinstance(error, CaRefused) and any(
        problem.detail.endswith(_RENEW_FIRST) for problem in error.problems
    )


def about_its_root(error: PkiError) -> PkiError:
    """Our refusal of a CA that leads to another root than we were told of, with what is to be done about that."""
    if not isinstance(error, Refused):
        return error
    return type(error)(
        evolve(
            problem,
            remedy=f"{problem.remedy}; if the CA has replaced its root while this was off, and has retired the one in "
            f"the options, {REJOIN}: nothing has to be deleted here",
        )
        if problem.code in _OTHER_ROOT
        else problem
        for problem in error.problems
    )


def told_problems(status: int, content: bytes) -> list[Problem]:
    """The reasons in a problem document, or what can be said without one."""
    try:
        document = json.loads(content)
        found = [
            _problem(*(printable(str(p[name])) for name in ("code", "detail", "remedy")))
            for p in document.get("problems", ())
        ]
        return found or [_problem(*(printable(str(document[name])) for name in ("code", "detail")))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [Problem(Code.CA_REFUSED, f"the CA answered {status}")]


def _problem(code: str, detail: str, remedy: str = "") -> Problem:
    """What a problem document says; a code of another version's begins the detail, and so stays to be read."""
    known = Code.parse(code)
    if known is None:
        return Problem(Code.CA_REFUSED, f"{code}: {detail}", remedy)
    return Problem(known, detail, remedy)
