"""Regular expressions that a policy may hold: how costly one is, before the engine makes an automaton of it.

The engine's matching is linear in the text, whatever the pattern; making the automaton is what can take long, and
the engine does it for every evaluation. Classes of Unicode have thousands of states each.
"""

import re

from pki.rules.token import BadSyntax

#: Characters of a pattern.
LONGEST_PATTERN = 256
#: Tenths of a microsecond that a class of Unicode takes, any character and a negated class, and a character.
_UNICODE, _ANY, _CHARACTER = 6_000, 100, 8
#: Bytes that one state of an automaton takes in a tenth of a microsecond.
_WALK = 10
_PIECE = re.compile(
    r"""\\(?P<escape>.?)|(?P<negated>\[\^)|(?P<group>\(\?(?!:).?)|(?P<any>\.)|\{(?P<count>[^}]*)\}?|[^\\]""",
    re.DOTALL,
)
_COUNT = re.compile(r"([0-9]{1,3})(?:,([0-9]{1,3})?)?", re.ASCII)


def pattern_cost(pattern: str, at: int, longest: int) -> int:
    """What one use on so many bytes takes, in tenths of a microsecond; raises :class:`~pki.rules.token.BadSyntax`."""
    if len(pattern) > LONGEST_PATTERN:
        raise BadSyntax(at, f"a pattern has {LONGEST_PATTERN} characters at most")
    sum_of_pieces, states, times = 0, 0, 1
    for piece in _PIECE.finditer(pattern):
        states += 1
        if (escape := piece["escape"]) is not None:
            if escape in "pPXRuUx":
                raise BadSyntax(
                    at,
                    f"\\{escape} is not for patterns of a policy: write the characters, as [a-z]",
                )
            sum_of_pieces += _UNICODE if escape in "wWdDsSbB" else _CHARACTER
        elif piece["group"]:
            raise BadSyntax(
                at, f"{piece['group']!a} is not for patterns of a policy: groups are (…) and (?:…)"
            )
        elif (count := piece["count"]) is not None:
            if not (numbers := _COUNT.fullmatch(count)):
                raise BadSyntax(at, f"{{{count[:20]}}} is no count: write {{2}}, {{2,}} or {{2,5}}")
            times *= max(int(numbers[2] or numbers[1]), 1)
        else:
            sum_of_pieces += _ANY if piece["negated"] or piece["any"] else _CHARACTER
    return (sum_of_pieces + states * longest // _WALK) * times
