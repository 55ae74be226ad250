"""A command is run within its time, whatever it does, and nothing of it is left."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.errors import Malformed
from tests.running import PATIENCE, until
from twisted_mesh.files.command import Command, NotTold, Stop

FACTS = {"MESH_CHANGED": "svid"}


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.close()


def shell(script: str, timeout: float = PATIENCE) -> Command:
    return Command(("sh", "-c", script), timeout)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"


def test_it_has_the_facts_no_input_and_a_session_of_its_own(tmp_path: Path, stop: Stop) -> None:
    out = tmp_path / "out"
    shell(f'echo "$MESH_CHANGED $(cat | wc -c) $(ps -o sid= -p $$) $$" > {out}').run(FACTS, stop)
    changed, size, session, pid = out.read_text().split()
    assert (changed, size, session) == ("svid", "0", pid)


def test_no_shell_looks_at_it(tmp_path: Path, stop: Stop) -> None:
    Command.parse(f"touch '{tmp_path}/a;b $HOME'").run(FACTS, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a;b $HOME"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "sh ended with status 3"),
        ("echo first; echo the cause >&2; exit 1", "sh ended with status 1: the cause"),
        ("kill -9 $$", "sh was ended by SIGKILL"),
        (r"printf '\033[31mred\033[0m'; exit 1", r"status 1: .*red"),
    ],
    ids=["status", "last line", "signal", "colours"],
)
def test_one_that_fails_is_told_with_its_last_line(script: str, said: str, stop: Stop) -> None:
    with pytest.raises(NotTold, match=said) as caught:
        shell(script).run(FACTS, stop)
    assert str(caught.value).isprintable()


def test_a_megabyte_is_read_and_forgotten(stop: Stop) -> None:
    with pytest.raises(NotTold) as caught:
        shell("head -c 1048576 /dev/zero | tr '\\0' x; echo; echo the end; exit 1").run(FACTS, stop)
    assert str(caught.value) == "sh ended with status 1: the end (of 1048585 bytes)"


@pytest.mark.parametrize(
    "script",
    ["sleep 600", "trap '' TERM; sleep 600 & wait; sleep 600", "yes", "exec >&- 2>&-; sleep 600"],
    ids=["hangs", "heeds no TERM", "never stops writing", "closes its output"],
)
def test_one_that_hangs_is_ended_with_all_that_it_has_started(
    tmp_path: Path, script: str, stop: Stop
) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(NotTold, match=r"sh took over 0\.2 s and was ended"):
        shell(f"sleep 601 & echo $! $$ > {pids}; {script}", 0.2).run(FACTS, stop)
    assert time.monotonic() - began < PATIENCE
    for pid in map(int, pids.read_text().split()):
        until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]


def test_what_it_leaves_running_holds_up_nobody(tmp_path: Path, stop: Stop) -> None:
    pids = tmp_path / "pids"
    shell(f"yes & echo $! > {pids}").run(FACTS, stop)
    until(lambda: is_gone(int(pids.read_text())))  # nobody reads what it writes any more


def test_stop_ends_it_from_another_thread(tmp_path: Path, stop: Stop) -> None:
    begun = tmp_path / "begun"

    def end() -> None:
        until(begun.exists)
        stop.set()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(NotTold, match="was still running and was ended"):
        shell(f"touch {begun}; sleep 600").run(FACTS, stop)
    thread.join()
    with pytest.raises(NotTold):  # and none begins
        shell("sleep 600").run(FACTS, stop)


def test_one_that_is_no_program_is_a_sentence(tmp_path: Path, stop: Stop) -> None:
    script = tmp_path / "script"
    script.write_text("no interpreter")
    script.chmod(0o755)
    with pytest.raises(NotTold, match=r"could not be run \(Exec format error\)"):
        Command((str(script),)).run(FACTS, stop)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no program"),
        ("  ", "names no program"),
        ("sh -c 'echo", "cannot be split into words (no closing quotation)"),
        ("no-such-program --reload", "there is no program 'no-such-program' in PATH"),
        ("/etc/passwd", "there is no program '/etc/passwd'"),
        ("sh\0", "names no program"),
    ],
    ids=["empty", "spaces", "quote", "unknown", "no program", "zero"],
)
def test_what_cannot_be_run_is_refused_before_the_start(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=re.escape(said)):
        Command.parse(text)


def test_its_arguments_are_not_in_its_name() -> None:
    assert Command.parse("sh -c 'secret'").name == "sh"


def test_no_descriptor_is_left(stop: Stop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    shell("true").run(FACTS, stop)
    with pytest.raises(NotTold):
        shell("sleep 600", 0.05).run(FACTS, stop)
    assert len(os.listdir("/proc/self/fd")) == before
