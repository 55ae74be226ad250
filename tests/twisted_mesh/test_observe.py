"""What people and programs see of an event, and that no value in it can make them see another."""

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from pki.errors import Problem
from twisted_mesh import observe
from twisted_mesh.observe import JsonObserver, TextObserver
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.runtime.log import codes, logger, reasons

WHEN = datetime(2026, 11, 23, 10, 0, 0, 250000, tzinfo=UTC).timestamp()


def made(
    text: str = "something happened",
    level: str = "info",
    namespace: str = "mesh.server",
    failure: Failure | None = None,
    **facts: Any,
) -> LogEvent:
    """The event that a logger makes of it."""
    events: list[LogEvent] = []
    log = Logger(namespace=namespace, observer=events.append)
    if failure is None:
        log.emit(LogLevel.levelWithName(level), text, **facts)
    else:
        log.failure(text, failure, LogLevel.levelWithName(level), **facts)
    (event,) = events
    return {**event, "log_time": WHEN}


def as_text(event: LogEvent, *, timestamps: bool = False) -> str:
    out = io.StringIO()
    TextObserver(out, timestamps=timestamps)(event)
    return out.getvalue()


def as_json(event: LogEvent) -> dict[str, Any]:
    """Read by two parsers; msgspec's takes no NaN and no half of a surrogate pair."""
    out = io.StringIO()
    JsonObserver(out)(event)
    line = out.getvalue()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    found: dict[str, Any] = msgspec.json.decode(line)
    assert found == json.loads(line)
    return found


def broken() -> Failure:
    try:
        raise ValueError("first line\nsecond line \x1b[31m")
    except ValueError:
        return Failure()


# For people.


def test_a_line_has_its_time_its_subsystem_and_its_facts() -> None:
    event = made("Next rotation: {when} ({left} s)", when="10:30", left=1800)
    assert (
        as_text(event, timestamps=True)
        == "2026-11-23T10:00:00Z [SERVER] Next rotation: 10:30 (1800 s)\n"
    )


def test_without_timestamps_it_begins_with_the_subsystem() -> None:
    assert as_text(made("Hello", namespace="mesh.ca")) == "[CA] Hello\n"


def test_a_namespace_below_a_subsystem_belongs_to_it() -> None:
    assert as_text(made("Hello", namespace="mesh.tls.alerts")) == "[TLS] Hello\n"


def test_indented_facts_stand_below_and_other_lines_get_a_prefix_of_their_own() -> None:
    event = made("Issued:\n  Serial: {serial}\nReady.", serial="AB:CD")
    assert as_text(event) == "[SERVER] Issued:\n  Serial: AB:CD\n[SERVER] Ready.\n"


@pytest.mark.parametrize(
    ("level", "prefix"),
    [("info", ""), ("warn", "WARNING: "), ("error", "ERROR: "), ("critical", "ERROR: ")],
)
def test_what_is_wrong_is_marked(level: str, prefix: str) -> None:
    assert as_text(made("Look", level)) == f"[SERVER] {prefix}Look\n"


def test_a_failure_has_its_traceback_indented_below() -> None:
    first, *rest = as_text(made("it broke", "critical", failure=broken())).splitlines()
    assert first == "[SERVER] ERROR: it broke"
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
    assert any("ValueError" in line for line in rest)
    assert any("second line" in line for line in rest)


def test_twisteds_own_chatter_is_not_shown_and_its_warnings_are() -> None:
    assert as_text(made("Starting factory", namespace="twisted.web")) == ""
    shown = as_text(made("a {b}", "warn", "twisted.web", b="thing\nand more"))
    assert shown == "[TWISTED] WARNING: a thing\n[TWISTED] WARNING: and more\n"


def test_our_own_debugging_is_not_shown() -> None:
    assert as_text(made("details", "debug")) == ""


def test_a_namespace_that_only_begins_like_ours_is_not_ours() -> None:
    assert as_text(made("Hello", namespace="meshed.server")) == ""
    assert as_text(made("Hello", namespace="mesh")) == ""


def test_events_of_old_code_are_shown_if_they_are_errors() -> None:
    old = {"log_level": LogLevel.critical, "log_format": None, "isError": 1, "message": ("old",)}
    assert as_text(old).startswith("[TWISTED] ERROR: ")


def test_a_fact_that_is_missing_hides_no_others() -> None:
    assert event_text(made("{a} and {b}", a="here")) == "here and ?"


class Hostile:
    """Cannot be shown in words; hypothesis wants its repr."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Mute(Hostile):
    __repr__ = Hostile.__str__


circle: list[Any] = []
circle.append(circle)

VALUES = st.recursive(
    st.text()
    | st.binary()
    | st.none()
    | st.integers()
    | st.floats()
    | st.builds(Hostile)
    | st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]).map(lambda c: f"a{c}[CA] b"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NASTY = ["a\r\nb", "\x1b[2J", "\u2028x", "\u202eevil", "\ud800", "\x85", "{a}", "{0.__class__}"]


@given(VALUES, VALUES)
@example(NASTY[0], NASTY[1])
@example(NASTY[2], NASTY[3])
@example(NASTY[4], NASTY[5])
@example(NASTY[6], NASTY[7])
@example("\n2026-11-23T10:00:00Z [CA] Certificate issued", Hostile())
def test_no_value_adds_a_line_or_a_control_character_to_the_text(a: Any, b: Any) -> None:
    text = as_text(made("Title of {a}:\n  B: {b}\nEnd of {a}", a=a, b=b))
    first, second, third, end = text.split("\n")
    assert end == ""
    assert first.startswith("[SERVER] Title of ")
    assert second.startswith("  B: ")
    assert third.startswith("[SERVER] End of ")
    assert all(line.isprintable() for line in (first, second, third))


@given(VALUES, VALUES)
@example(float("nan"), float("-inf"))
@example("\ud800", ["\udfff"])
@example({(1, 2): 3}, {1: {2: {3}}})
@example(circle, Hostile())
def test_no_value_breaks_the_json_line(a: Any, b: Any) -> None:
    line = as_json(made("Title of {a}", a=a, b=b, event="tested"))
    assert {"time", "level", "system", "event", "message", "a", "b"} == set(line)
    assert line["event"] == "tested"
    assert line["message"].startswith("Title of ")


@pytest.mark.parametrize("value", [Mute(), [Mute()], {"a": Mute()}, 10**5000], ids=range(4))
def test_a_value_that_cannot_be_shown_loses_no_line(value: object) -> None:
    assert as_text(made("Look: {a}", a=value)).startswith("[SERVER] Look: ")
    assert isinstance(as_json(made("Look", a=value))["a"], str)


def test_a_stream_of_another_encoding_loses_characters_and_no_lines() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    TextObserver(out, timestamps=False)(made("refused {who}", who="Zoë"))
    assert raw.getvalue() == b"[SERVER] refused Zo\\xeb\n"


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_log_that_nobody_reads_any_more_stops_nothing(error: type[Exception]) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error("gone")

    TextObserver(Gone())(made())
    JsonObserver(Gone())(made())


# For programs.


def test_a_json_line_has_every_fact_under_its_name() -> None:
    event = made(
        "Issued:\n  Serial: {serial}",
        "warn",
        event="certificate-issued",
        serial="0A:BC",
        serials=("0A:BC", "01"),
        number=3,
        good=True,
        none=None,
        chain=["CN=a", "CN=b"],
        path=Path("/x"),
    )
    assert as_json(event) == {
        "time": "2026-11-23T10:00:00.250000Z",
        "level": "warn",
        "system": "server",
        "event": "certificate-issued",
        "message": "Issued:",
        "serial": "0abc",
        "serials": ["0abc", "01"],
        "number": 3,
        "good": True,
        "none": None,
        "chain": ["CN=a", "CN=b"],
        "path": "/x",
    }


def test_facts_cannot_take_the_place_of_what_the_line_is_about() -> None:
    line = as_json({**made("words"), "time": 0, "level": "x", "system": "x", "message": "x"})
    assert line == {
        "time": "2026-11-23T10:00:00.250000Z",
        "level": "info",
        "system": "server",
        "event": "",
        "message": "words",
    }


def test_a_failure_has_its_traceback_in_one_json_line() -> None:
    line = as_json(made("it broke", "critical", failure=broken(), event="broke"))
    assert line["message"] == "it broke"
    assert "ValueError" in line["traceback"]
    assert "log_failure" not in line


def test_twisteds_warnings_in_json_have_no_facts_of_theirs() -> None:
    line = as_json(made("a {b}", "warn", "twisted.web", b="c"))
    assert line["system"] == "twisted"
    assert line["message"] == "a c"
    assert "b" not in line
    out = io.StringIO()
    JsonObserver(out)(made("a", namespace="twisted.web"))
    assert out.getvalue() == ""


@given(st.floats(-1e6, 4e9) | st.sampled_from([0.9999995, 1.9999996, 1e9 + 0.9999999, -0.25]))
def test_the_moment_of_a_line_is_the_one_that_datetime_has(seconds: float) -> None:
    out = io.StringIO()
    JsonObserver(out)({**made("words"), "log_time": seconds})
    exact = datetime.fromtimestamp(seconds, UTC)
    assert json.loads(out.getvalue())["time"] == f"{exact:%Y-%m-%dT%H:%M:%S.%fZ}"


@given(
    st.dictionaries(
        st.sampled_from(["a", "serial", "serials", "chain"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
            max_leaves=5,
        ),
    )
)
def test_whatever_a_fact_is_there_is_one_line_of_json(facts: dict[str, object]) -> None:
    out = io.StringIO()
    JsonObserver(out)(made("words {a}", **facts))
    line = out.getvalue()
    assert line.isascii()
    assert line.count("\n") == 1
    told = json.loads(line, parse_constant=pytest.fail)
    assert told["message"].startswith("words ")
    for name, value in facts.items():
        if not name.startswith("serial") and isinstance(value, str | int | None):
            assert told[name] == value or not str(value).isascii()


# Chosen by the options.


@pytest.mark.parametrize(("name", "kind"), [("text", TextObserver), ("json", JsonObserver)])
def test_the_chosen_observer_writes_where_it_was_told(
    tmp_path: Path, name: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe.choose("mesh-ca", name, str(tmp_path / "log"))
    to_file: Any = observe.chosen()
    to_file(made("Zoë {a}", a="\ud800"))
    assert isinstance(to_file, kind)
    assert (tmp_path / "log").read_bytes() == b"", "it may be that the process forks yet"
    observe.finish_writing()
    assert b"[SERVER]" in (tmp_path / "log").read_bytes() or name == "json"
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1
    to_file._out.output.close()
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    observe.choose("mesh-ca", name)
    to_stdout: Any = observe.chosen()
    to_stdout(made("Hello"))
    assert "Hello" in out.getvalue()


def test_a_log_in_a_directory_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    observe.choose("mesh-ca", "text", str(tmp_path / "missing" / "log"))
    with pytest.raises(SystemExit) as ended:
        observe.chosen()
    assert "mesh-ca: the log " in str(ended.value)
    assert "(No such file or directory): make its directory" in str(ended.value)


@pytest.mark.parametrize("name", ["text", "json"])
def test_the_log_says_that_it_was_reopened_and_what_is_lost(tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    observe.choose("mesh-ca", name, str(log))
    observer: Any = observe.chosen()
    observer(made("before"))
    log.rename(tmp_path / "log.1")
    observe.reopen()
    observer._out.most = 10
    observer(made("this does not fit"))
    observer(made("nor this"))
    observe.finish_writing()
    observer._out.output.close()
    assert "before" in (tmp_path / "log.1").read_text()
    reopened, lost = log.read_text().splitlines()
    assert "Log reopened" in reopened
    assert "2 lines are missing here, from 20" in lost
    if name == "json":
        assert json.loads(lost)["event"] == "log-lines-lost"
        assert json.loads(lost)["lines"] == 2


# What the events hold.


def test_a_refusals_codes_are_told_once_each_and_in_order() -> None:
    problems = [Problem("b", "1"), Problem("a", "2"), Problem("b", "3")]
    assert codes(problems) == "b, a"


def test_a_refusals_reasons_are_one_line_of_bounded_length() -> None:
    text = reasons([Problem("expired", "it\nended", "renew it"), Problem("b", "x" * 5000)])
    assert text.startswith("expired: it\\nended (renew it); b: xxx")
    assert text.isprintable()
    assert len(text) < 2100


def test_our_loggers_make_the_events_that_twisteds_make() -> None:
    events: list[LogEvent] = []
    ours = type(logger("ca"))(namespace="mesh.ca", observer=events.append)
    for log in (ours, Logger(namespace="mesh.ca", observer=events.append)):
        log.warn("a {b}", b="c", event="tested")
    first, second = events
    assert first.keys() == second.keys()
    for name in first.keys() - {"log_time", "log_logger"}:
        assert first[name] == second[name]
    assert first["log_logger"] is ours
    assert abs(first["log_time"] - second["log_time"]) < 60


def test_subsystems_are_namespaces_of_the_mesh() -> None:
    assert logger("ca").namespace == "mesh.ca"
