"""Who is told of alerts: in their order, each of all, until it has succeeded, and nobody because of another."""

import random
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from tests.authorities import NOW
from tests.twisted_mesh.monitor.rig import here, now_done
from twisted_mesh.files.command import Command
from twisted_mesh.monitor.alert import Alert, AlertKind
from twisted_mesh.monitor.database import Database
from twisted_mesh.monitor.index import MOST_ALERTS, Index
from twisted_mesh.monitor.telling import Commands, Teller


def alert(number: int, kind: AlertKind = AlertKind.NAME_SEEN) -> Alert:
    return Alert.of(kind, NOW, f"the alert {number}", "log.example", serial=f"{number:02x}")


@define(eq=False)
class Sink:
    """Remembers what it was told, and fails as often as it is to."""

    name: str
    fails: int = 0
    at_once: int = 2
    told: list[int] = field(factory=list)

    async def tell(self, alerts: Sequence[tuple[int, Alert]]) -> None:
        if self.fails:
            self.fails -= 1
            raise PkiError("nobody takes it")
        self.told += [int(alert.facts["serial"], 16) for _, alert in alerts]


@define(eq=False)
class Told:
    path: Path
    seconds: float = 0.0
    index: Index = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.index = Index(Database(self.path))
        self.index.database.own()

    def teller(self, *sinks: Sink | Commands) -> Teller:
        teller = Teller(self.index, here, sinks, lambda: self.seconds, random.Random(1))
        now_done(teller.begin())
        return teller


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path / "index.db")
    yield made
    made.index.database.close()


def test_all_are_told_in_their_order_once(told: Told) -> None:
    sink = Sink("one")
    teller = told.teller(sink)
    told.index.raise_alerts([alert(n) for n in range(5)])
    now_done(teller.tell())
    now_done(teller.tell())
    assert sink.told == [0, 1, 2, 3, 4]


def test_one_that_fails_is_told_later_and_holds_up_nobody(told: Told) -> None:
    bad, good = Sink("bad", fails=1), Sink("good")
    teller = told.teller(bad, good)
    told.index.raise_alerts([alert(1)])
    now_done(teller.tell())
    assert (bad.told, good.told) == ([], [1])
    assert teller.failing == {"bad": "malformed: nobody takes it"}
    now_done(teller.tell())  # it is not due yet
    assert not bad.told
    told.seconds += 1
    now_done(teller.tell())
    assert bad.told == [1]
    assert not teller.failing


def test_what_was_not_told_before_a_restart_is_told_after_it(told: Told) -> None:
    teller = told.teller(Sink("hook", fails=1))
    told.index.raise_alerts([alert(7)])
    now_done(teller.tell())
    told.index.database.close()
    again = Told(told.path)
    sink = Sink("hook")
    now_done(again.teller(sink).tell())
    assert sink.told == [7]
    again.index.database.close()


def test_who_is_new_is_told_of_what_comes(told: Told) -> None:
    told.teller(Sink("old"))
    told.index.raise_alerts([alert(1)])
    new = Sink("new")
    teller = told.teller(new)
    told.index.raise_alerts([alert(2)])
    now_done(teller.tell())
    assert new.told == [2]


def test_alerts_are_bounded_and_the_newest_stay(told: Told) -> None:
    told.teller(Sink("away"))
    told.index.raise_alerts([alert(n % 256) for n in range(MOST_ALERTS + 5)])
    assert told.index.forget_alerts() == 5
    (number, _), *_ = told.index.untold("away", 1)
    assert number == 6
    assert told.index.counts()["name-seen"] == MOST_ALERTS + 5


def test_a_command_gets_it_in_its_environment_and_no_shell_sees_it(
    told: Told, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = tmp_path / "told.py"
    script.write_text(
        f"import os; open({str(out)!r}, 'a').write(os.environ['MESH_ALERT_DETAIL'] + os.environ['MESH_ALERT_JSON'])"
    )
    teller = told.teller(Commands(Command.parse(f"{sys.executable} -S {script}"), here))
    nasty = "$(touch x); `id` '\" \n\0"
    told.index.raise_alerts([Alert.of(AlertKind.ODD_NAME, NOW, nasty, "log.example")])
    now_done(teller.tell())
    said = out.read_text()
    assert said.startswith("$(touch x); `id` '\" \\n\\x00")
    assert '"kind":"odd-name"' in said


def test_a_command_that_fails_is_run_again(told: Told) -> None:
    teller = told.teller(Commands(Command.parse("false"), here))
    told.index.raise_alerts([alert(1)])
    now_done(teller.tell())
    assert "status 1" in teller.failing["command false"]
    assert told.index.untold("command false", 9)


def test_what_stands_is_told_once_until_it_is_over(told: Told) -> None:
    away = alert(1, AlertKind.AWAY)
    assert told.index.begins(away)
    assert not told.index.begins(away)
    assert told.index.ends("log.example", AlertKind.AWAY)
    assert not told.index.ends("log.example", AlertKind.AWAY)
    assert told.index.begins(away)
    assert told.index.counts()["log-away"] == 2


@given(
    st.sampled_from(list(AlertKind)),
    st.text(max_size=50),
    st.text(max_size=50),
    st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), st.text(max_size=50)),
    st.integers(-(10**6), 10**6),
)
def test_an_alert_is_read_as_it_was_written(
    kind: AlertKind, detail: str, log: str, facts: dict[str, str], seconds: int
) -> None:
    facts = {f"x{name}": value for name, value in facts.items()}
    made = Alert.of(kind, NOW + timedelta(seconds=seconds), detail, log, **facts)
    assert Alert.parse(made.to_bytes()) == made
    assert all("\0" not in value and "\n" not in value for value in made.environment.values())


@given(st.binary(max_size=100))
def test_what_is_no_alert_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Alert.parse(data)
