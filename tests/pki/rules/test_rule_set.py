"""Rules together: who decides, what an error does, what a file may hold, and that its unit tests find what is wrong."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.rules.case import read_cases, run_case
from pki.rules.errors import BadPolicy, PolicyDenied, PolicyUnavailable
from pki.rules.facts import EntryFacts, Facts, RequestFacts, RuleAction
from pki.rules.rule_set import RuleSet
from pki.rules.rules_file import digest_of, read_rules


def rules(*tables: str) -> RuleSet:
    return read_rules(
        {"p.toml": "version = 1\n" + "".join(f"[[rule]]\n{table}\n" for table in tables)}
    )


def rule(name: str, effect: str, when: str, more: str = "") -> str:
    return f"name = '{name}'\neffect = '{effect}'\nwhen = '''{when}'''\n{more}"


ANYBODY = rule("anybody", "allow", "true")
NO_ROOT = rule("no-root", "deny", "'unix:uid:0' in selectors", "reason = 'root gets nothing'")
ONE = "version = 1\n[[rule]]\n"
BROKEN = "selectors[9] == 'x'"


def test_nothing_is_allowed_that_no_rule_allows() -> None:
    decision = rules(rule("web", "allow", "request.path == '/web'")).decide(Facts())
    assert (decision.allowed, decision.rule) == (False, "")
    with pytest.raises(PolicyDenied, match="no rule of the policy allows it"):
        decision.require()


def test_one_rule_that_denies_outweighs_all_that_allow_wherever_it_stands() -> None:
    for order in ((ANYBODY, NO_ROOT), (NO_ROOT, ANYBODY)):
        decision = rules(*order).decide(Facts(selectors=("unix:uid:0",)))
        assert (decision.allowed, decision.rule) == (False, "no-root")
        with pytest.raises(PolicyDenied, match="rule 'no-root' says no: root gets nothing"):
            decision.require()
        assert rules(*order).decide(Facts()).require().rule == "anybody"


def test_the_first_that_allows_is_named() -> None:
    both = rules(rule("first", "allow", "true"), rule("second", "allow", "true"))
    assert both.decide(Facts()).rule == "first"


@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_an_error_in_a_rule_that_is_asked_is_no_decision(effect: str) -> None:
    broken = rule("broken", effect, BROKEN)
    with pytest.raises(PolicyUnavailable, match="rule 'broken' cannot be evaluated"):
        rules(broken, ANYBODY, NO_ROOT).decide(Facts())


def test_a_rule_that_need_not_be_asked_has_no_error() -> None:
    assert rules(ANYBODY, rule("broken", "allow", BROKEN)).decide(Facts()).allowed


def test_a_rule_is_asked_when_it_says_or_wherever_it_knows_what_it_reads() -> None:
    of_ca = rules(
        rule("a", "allow", "request.ttl > 0"), rule("b", "allow", "peer.id != ''"), ANYBODY
    )
    asked = {one.name: set(map(str, one.actions)) for one in of_ca.rules}
    assert asked == {
        "a": {"issue", "renew", "issue-jwt"},
        "b": {"connect", "accept"},
        "anybody": set(map(str, RuleAction)),
    }
    renewing = rules(rule("a", "allow", "true", "on = ['renew']"))
    assert renewing.decide(Facts(action="renew")).allowed
    assert not renewing.decide(Facts()).allowed
    assert renewing.answers(RuleAction.RENEW)
    assert not renewing.answers(RuleAction.ISSUE)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "version"),
        ("version = 2", "version 2 is not known"),
        ("version = 1", "no rule in it"),
        ("version = 1\nrules = []", "unknown field `rules`"),
        ("version = 1\n[[rule]]", "missing required field `name`"),
        (ONE + rule("a", "allow", "true", "why = ''"), "unknown field `why`"),
        (ONE + rule("a", "maybe", "true"), "neither allow nor deny"),
        (ONE + rule("a b", "allow", "true"), "letters, digits"),
        (ONE + rule("a", "allow", "true", "on = ['sign']"), "on has sign, and there are issue"),
        (ONE + rule("a", "allow", "request.ttl > 1", "on = ['accept']"), "nothing is known of request.ttl"),
        (ONE + rule("a", "allow", "request.path == peer.path"), "no action at which all is known"),
        (ONE + rule("a", "allow", "true", "reason = 'a\\u001b'".replace("'", '"')), "one line"),
        ("version = 1\n" + ("[[rule]]\n" + ANYBODY + "\n") * 2, "another one has that name"),
        (ONE + rule("a", "allow", "request.tll > 1"), "a.toml, rule 'a': line 1, column 9: .*did you mean ttl"),
        ("version = 1\n[[rule]\n", "a.toml: "),
        ("version = 1\n[[external]]\nname = 'opa'\nurl = 'ftp://x'", "an address like https"),
        ("version = 1\n[[external]]\nname = 'opa'\nurl = 'https://x'\ntimeout = 0", "timeout is seconds"),
        ("version = 1\n[[external]]\nname = 'opa'\nurl = 'https://x'\non = ['accept']", "only a CA asks elsewhere"),
        ("version = 1\n#" + "x" * 300_000, "256 KiB"),
        ("x = " + "[" * 5000, "a.toml"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_is_no_policy(text: str, why: str) -> None:
    with pytest.raises(BadPolicy, match=why):
        read_rules({"a.toml": text})


def test_all_mistakes_of_all_files_are_told() -> None:
    bad = ONE + rule("x", "allow", "request.tll > 1")
    with pytest.raises(BadPolicy) as caught:
        read_rules({"b.toml": bad.replace("'x'", "'y'"), "a.toml": bad, "c.toml": "nonsense"})
    assert [problem.subject[:6] for problem in caught.value.problems] == [
        "a.toml",
        "b.toml",
        "c.toml",
    ]


def test_rules_that_are_too_costly_together_are_no_policy() -> None:
    costly = "selectors.exists(a, entry.selectors.exists(b, b == 'q'))"
    assert rules(rule("a", "allow", costly))
    with pytest.raises(BadPolicy, match="asked for issue could take 43 ms together"):
        rules(rule("a", "allow", costly), rule("b", "deny", costly))
    assert rules(
        rule("a", "allow", costly, "on = ['issue']"), rule("b", "deny", costly, "on = ['renew']")
    )


def test_a_policy_is_known_by_what_its_files_hold() -> None:
    texts = [{"a": "1", "b": "2"}, {"a": "12", "b": ""}, {"a1": "", "b": "2"}, {"a": "1"}]
    assert len({digest_of(files) for files in texts}) == len(texts)
    assert digest_of({"b": "2", "a": "1"}) == digest_of(texts[0])


def test_an_explanation_has_every_rule_with_what_it_read() -> None:
    whole = rules(NO_ROOT, ANYBODY, rule("broken", "allow", BROKEN))
    told = whole.explain(Facts(selectors=("unix:uid:0",)))
    assert [(v.rule, v.holds, v.decides) for v in told.verdicts] == [
        ("no-root", True, True),
        ("anybody", True, False),
        ("broken", None, False),
    ]
    assert told.verdicts[0].values == (("selectors", ["unix:uid:0"]),)
    unknown = rules(rule("broken", "deny", BROKEN), ANYBODY).explain(Facts())
    assert unknown.decision is None
    assert "broken" in unknown.error


# The input.


def test_an_input_is_written_and_read_again() -> None:
    facts = Facts(
        action="renew",
        selectors=("a", "b"),
        request=RequestFacts(ttl=5, dns_names=("x",)),
        entry=EntryFacts(id="e"),
        time=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert Facts.of_input(facts.as_input()) == facts


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"requets": {}}, "requets is no member of the input: there are action"),
        ({"request": {"tll": 1}}, "request.tll is no member"),
        ({"request": 5}, "request is an object"),
        ({"request": {"ttl": "1"}}, "request.ttl is a whole number"),
        ({"request": {"ttl": True}}, "request.ttl is a whole number"),
        ({"request": {"ttl": 2**63}}, "below 2\\^63"),
        ({"principal": {"administrator": 1}}, "true or false"),
        ({"selectors": "a"}, "selectors is a list"),
        ({"selectors": [1]}, "selectors\\[0\\] is a text"),
        ({"time": "yesterday"}, "time is a time like"),
        ({"time": "2026-01-01T00:00:00"}, "with its zone"),
        ({"version": 2}, "version is 1"),
    ],
)
def test_an_input_with_a_mistake_is_refused(given: dict[str, object], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        Facts.of_input(given)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = st.sampled_from(["request", "selectors", "time", "action", "version", "peer", "x"])


@given(st.dictionaries(_NAMES, _JSON, max_size=4))
def test_no_input_makes_anything_but_facts_or_a_refusal(given_: dict[str, object]) -> None:
    try:
        facts = Facts.of_input(given_)
    except Malformed:
        return
    assert Facts.of_input(facts.as_input()) == facts


# Unit tests beside it.

CASES = """
version = 1
[input]
selectors = ["unix:uid:0"]
[[test]]
name = "root"
action = "issue"
expect = "deny"
rule = "no-root"
[[test]]
name = "others"
action = "renew"
input = { selectors = ["unix:uid:5"], request = { ttl = 60 } }
expect = "allow"
"""


def results(policy: RuleSet, text: str = CASES) -> list[str]:
    return [
        "ok" if (outcome := run_case(policy, case)).is_as_expected else str(outcome)
        for case in read_cases({"p.test.toml": text})
    ]


def test_unit_tests_hold_where_the_policy_says_what_they_expect() -> None:
    assert results(rules(ANYBODY, NO_ROOT)) == ["ok", "ok"]


def test_a_policy_that_allows_too_much_fails_its_test_and_is_told_so() -> None:
    first, second = results(rules(ANYBODY))
    assert (first, second) == (
        "the policy allows too much: allow by anybody, and it must be denied",
        "ok",
    )


def test_the_right_answer_by_another_rule_is_the_wrong_one() -> None:
    first, _ = results(rules(ANYBODY, rule("nobody", "deny", "true")))
    assert first == "deny by nobody, and deny by no-root is expected"


def test_an_error_is_neither_allowed_nor_denied() -> None:
    broken = rules(ANYBODY, rule("broken", "deny", BROKEN))
    assert all("error (the policy's rule 'broken'" in result for result in results(broken))
    assert results(broken, CASES.replace('"deny"', '"error"').replace('rule = "no-root"', "")) == [
        "ok",
        "error (the policy's rule 'broken' cannot be evaluated: IndexError: index out of bounds: 9), "
        "and allow is expected",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version = 2", "version 2"),
        ("version = 1\ninput = 5", "input"),
        ("version = 1\n[input]\nx = 5", "x is no member"),
        (CASES.replace("ttl", "tll"), "test 'others': request.tll is no member"),
        (CASES.replace('"renew"', '"sign"'), "test 'others': action is one of"),
        (CASES.replace('"allow"', '"yes"'), "Invalid enum value 'yes'"),
        (CASES.replace("rule =", "by ="), "unknown field `by`"),
        ("nonsense", "p.test.toml: "),
    ],
)
def test_a_test_with_a_mistake_is_not_passed_over(text: str, why: str) -> None:
    with pytest.raises(BadPolicy, match=re.escape(why) if "`" in why else why):
        read_cases({"p.test.toml": text})


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_a_policy_or_a_refusal(text: str) -> None:
    for read in (read_rules, read_cases):
        try:
            read({"p.toml": text})  # type: ignore[operator]
        except PkiError:
            continue


# What a policy may be followed by.

DENY = f"version = 1\n[[rule]]\n{NO_ROOT}"
ALLOW = f"version = 1\n[[rule]]\n{ANYBODY}"
OPA = "version = 1\n[[external]]\nname = 'opa'\nurl = 'https://opa.example/v1'\n"
EMPTY = "version = 1\n"


def follow(before: dict[str, str], after: dict[str, str]) -> None:
    read_rules({"a.toml": ALLOW, **after}).demand_denials_of(
        read_rules({"a.toml": ALLOW, **before})
    )


@pytest.mark.parametrize("said_no", [DENY, OPA], ids=["a rule", "a decision point"])
def test_a_file_by_which_it_said_no_may_be_changed_or_emptied_and_not_be_gone(said_no: str) -> None:
    follow({"d.toml": said_no}, {"d.toml": said_no, "e.toml": EMPTY})
    follow({"d.toml": said_no}, {"d.toml": EMPTY})
    follow({"d.toml": EMPTY}, {})
    follow({"d.toml": said_no}, {"e.toml": said_no})
    follow({}, {"d.toml": said_no})
    with pytest.raises(BadPolicy, match=r"d\.toml is gone, by which (no-root|opa) said no"):
        follow({"d.toml": said_no}, {})


def test_a_rule_of_that_name_that_allows_stands_for_none_that_denied() -> None:
    with pytest.raises(BadPolicy, match="no-root said no"):
        follow({"d.toml": DENY}, {"e.toml": DENY.replace("'deny'", "'allow'")})


def test_every_file_that_is_gone_is_told() -> None:
    second = DENY.replace("no-root", "no-boot")
    with pytest.raises(BadPolicy) as refusal:
        follow({"d.toml": DENY, "f.toml": second}, {})
    assert [problem.subject for problem in refusal.value.problems] == ["d.toml", "f.toml"]


def test_what_only_allowed_may_go() -> None:
    follow({"b.toml": ALLOW.replace("anybody", "others")}, {})
