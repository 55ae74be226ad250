"""As much of PromQL as our alert rules use, on two scrapes of the same targets.

Numbers, ``time()``, selectors, ``increase(selector[range])`` from the first scrape to the second,
``absent(selector)``, ``+ - * /`` and comparisons, with parentheses. Series meet by all of their labels.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import define, field, frozen
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = Mapping[Labels, float]
Value = float | Vector

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[a-zA-Z_]\w*)|(?P<text>\"[^\"]*\")"
    r"|(?P<range>\[\d+[smhd]\])|(?P<sign>==|>=|<=|!=|=~|[-+*/()<>={},]))"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_COUNT: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else float("nan"),
}


@frozen
class Selector:
    """A metric, and what its labels are to be."""

    metric: str
    equal: tuple[tuple[str, str], ...] = ()
    like: tuple[tuple[str, str], ...] = ()

    def of(self, scrape: "Scrape") -> dict[Labels, float]:
        return {
            labels: value
            for labels, value in scrape.get(self.metric, {}).items()
            if self._fits(dict(labels))
        }

    def _fits(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(name) == value for name, value in self.equal) and all(
            re.fullmatch(value, labels.get(name, "")) for name, value in self.like
        )


Scrape = dict[str, dict[Labels, float]]


def scrape_of(text: str, instance: str) -> Scrape:
    """What a target shows, by metric. It is read by Prometheus' own reader for Python, which is strict."""
    found: Scrape = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset({**sample.labels, "instance": instance}.items())
            assert labels not in found.get(sample.name, {}), f"{sample.name} is there twice"
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def together(*scrapes: Scrape) -> Scrape:
    """What Prometheus knows of several targets."""
    found: Scrape = {}
    for scrape in scrapes:
        for name, series in scrape.items():
            found.setdefault(name, {}).update(series)
    return found


@define
class Query:
    """An expression, to be asked of scrapes."""

    text: str
    selectors: list[Selector] = field(factory=list, init=False)
    """All that it names, once it has been asked."""
    _tokens: list[str] = field(factory=list, init=False)
    _now: float = field(default=0.0, init=False)
    _before: Scrape = field(factory=dict, init=False)
    _after: Scrape = field(factory=dict, init=False)

    def ask(self, before: Scrape, after: Scrape, now: float) -> Value:
        """Its value; of a comparison those series for which it holds."""
        self._tokens = list(_tokens(self.text))
        self._before, self._after, self._now = before, after, now
        self.selectors.clear()
        value = self._comparison()
        assert not self._tokens, f"{self.text}: {self._tokens} is left over"
        return value

    def _next(self, *wanted: str) -> str | None:
        if self._tokens and (not wanted or self._tokens[0] in wanted):
            return self._tokens.pop(0)
        return None

    def _comparison(self) -> Value:
        left = self._sum()
        sign = self._next(*_COMPARE)
        if sign is None:
            return left
        right = self._sum()
        assert isinstance(left, Mapping), "a comparison of numbers is no alert"
        holds = _COMPARE[sign]
        if isinstance(right, Mapping):
            return {k: v for k, v in left.items() if k in right and holds(v, right[k])}
        return {k: v for k, v in left.items() if holds(v, right)}

    def _sum(self) -> Value:
        left = self._product()
        while sign := self._next("+", "-"):
            left = _joined(_COUNT[sign], left, self._product())
        return left

    def _product(self) -> Value:
        left = self._term()
        while sign := self._next("*", "/"):
            left = _joined(_COUNT[sign], left, self._term())
        return left

    def _term(self) -> Value:
        token = self._next()
        assert token is not None, f"{self.text} ends too early"
        if token == "(":
            value = self._comparison()
            assert self._next(")")
            return value
        if token[0].isdigit():
            return float(token)
        if token in ("time", "increase", "absent"):
            assert self._next("(")
            value = self._called(token)
            assert self._next(")")
            return value
        return self._selector(token).of(self._after)

    def _called(self, name: str) -> Value:
        if name == "time":
            return self._now
        token = self._next()
        assert token is not None
        selector = self._selector(token)
        later = selector.of(self._after)
        if name == "absent":
            return {} if later else {frozenset(): 1.0}
        span = self._next()
        assert span is not None and span[0] == "[", "increase is of a range"
        earlier = selector.of(self._before)
        # Of a series that was not there before Prometheus sees no increase.
        return {k: v - earlier[k] for k, v in later.items() if k in earlier}

    def _selector(self, metric: str) -> Selector:
        equal, like = [], []
        if self._next("{"):
            while not self._next("}"):
                name, sign, value = self._next(), self._next("=", "=~"), self._next()
                assert name and sign and value
                (equal if sign == "=" else like).append((name, value.strip('"')))
                self._next(",")
        selector = Selector(metric, tuple(equal), tuple(like))
        self.selectors.append(selector)
        return selector


def _joined(count: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return {k: count(v, right[k]) for k, v in left.items() if k in right}
    if isinstance(left, Mapping):
        assert not isinstance(right, Mapping)
        return {k: count(v, right) for k, v in left.items()}
    if isinstance(right, Mapping):
        return {k: count(left, v) for k, v in right.items()}
    return count(left, right)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None, f"{text[at:]!r} is no PromQL that is known here"
        yield match[match.lastgroup or 0]
        at = match.end()


@frozen
class Rule:
    """One alert."""

    name: str
    expr: str
    for_: str
    severity: str
    summary: str


_RULE = re.compile(
    r"      - alert: (\w+)\n        expr: (\S.*)\n(?:        for: (\d+[smhd])\n)?"
    r"        labels: \{severity: (\w+)\}\n        annotations: \{summary: \"([^\"\n]+)\"\}\n"
)


def rules_in(text: str) -> Sequence[Rule]:
    """The rules of a file in the plain form of ours, every line of it read."""
    rest = re.sub(r"^(#.*|groups:|  - name: [\w-]+|    rules:)\n", "", text, flags=re.MULTILINE)
    found = [Rule(*(part or "" for part in match.groups())) for match in _RULE.finditer(rest)]
    assert _RULE.sub("", rest) == "", "a line is in no rule"
    assert ": " not in "".join(r.expr for r in found) and " #" not in "".join(
        r.expr for r in found
    ), "YAML would read more into it"
    return found
