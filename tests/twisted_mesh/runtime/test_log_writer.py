"""Whoever logs goes on, whatever becomes of the lines; and of each line it is known what became of it."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from tests.running import PATIENCE, until
from twisted_mesh.runtime import log_writer
from twisted_mesh.runtime.log_file import LogFile
from twisted_mesh.runtime.log_writer import Descriptor, LogWriter, Lost


def told(lost: Lost) -> str:
    return f"({lost.lines} lost: {lost.reason})\n"


@define
class Pipe:
    """Whose reader a test is; it holds a page."""

    reader: int
    writer: int
    output: Descriptor

    def read(self, size: int = 65536) -> str:
        return os.read(self.reader, size).decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    output = Descriptor(writer)
    yield Pipe(reader, writer, output)
    # A thread that has still something to write must not write it to whatever gets that number next.
    output.number = -1
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError as error:
            assert error.errno == errno.EBADF


def read_until(pipe: Pipe, end: str) -> str:
    text = ""
    while not text.endswith(end):
        text += pipe.read()
    return text


def test_nothing_is_written_before_it_starts_since_a_daemon_forks_yet(pipe: Pipe) -> None:
    writer = LogWriter(pipe.output, told)
    writer.write("before\n")
    child = os.fork()
    if child == 0:  # what twistd's foreground process does
        os._exit(0)
    os.waitpid(child, 0)
    writer.start()
    writer.start()
    writer.write("after\n")
    assert writer.finish()
    assert pipe.read() == "before\nafter\n"


def test_a_process_that_never_started_it_writes_at_its_end(pipe: Pipe) -> None:
    writer = LogWriter(pipe.output, told)
    writer.write("a line\n" * 100)
    assert writer.finish()
    assert pipe.read() == "a line\n" * 100


def test_a_reader_that_stalls_holds_up_nobody_and_hears_what_it_missed(pipe: Pipe) -> None:
    counted: list[int] = []
    writer = LogWriter(pipe.output, told, counted.append, most=20_000)
    writer.start()
    lines = [f"line {number:06}\n" for number in range(5000)]
    began = time.monotonic()
    for line in lines:
        writer.write(line)
    assert time.monotonic() - began < 5
    lost = sum(counted)
    assert 2000 < lost < 4500
    text = pipe.read()
    until(lambda: not writer._queue or text.count("\n") > 0)
    text += read_until(pipe, ")\n")
    before, _, _ = text.rpartition("(")
    assert before == "".join(lines[: 5000 - lost]), "what came before is whole and in order"
    assert text.endswith(f"({lost} lost: whoever reads the log has not kept up)\n")
    writer.write("again\n")
    assert read_until(pipe, "again\n") == "again\n"


def test_the_end_waits_for_a_stalled_reader_and_not_for_ever(pipe: Pipe) -> None:
    for starts in (False, True):
        writer = LogWriter(pipe.output, told)
        writer.write("x" * 10_000 + "\n")
        writer.write("y\n")
        if starts:
            writer.start()
        began = time.monotonic()
        assert not writer.finish(0.1)
        assert time.monotonic() - began < 5
    while not writer.finish(0.01):
        pipe.read()


def test_lines_that_no_disk_takes_are_counted_and_told_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LogFile(str(tmp_path / "log"))
    counted: list[int] = []
    writer = LogWriter(file, told, counted.append)
    full = True
    written = os.write

    def write(descriptor: int, data: bytes) -> int:
        if not full:
            return written(descriptor, data)
        if len(data) > 3:
            return written(descriptor, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log_writer.os, "write", write)
    writer.start()
    writer.write("one\ntwo")  # its first bytes find room
    writer.write(" and three\n")
    until(lambda: sum(counted) == 2 and writer.finish(0))
    full = False
    writer.write("four\n")
    assert writer.finish(PATIENCE)
    file.close()
    text = (tmp_path / "log").read_text()
    assert text.endswith("\n(2 lost: No space left on device)\nfour\n")


def test_nobody_is_told_of_a_reader_that_is_gone(pipe: Pipe) -> None:
    counted: list[int] = []
    writer = LogWriter(pipe.output, told, counted.append)
    os.close(pipe.reader)
    writer.start()
    for _ in range(10):
        writer.write("x\n")
    assert writer.finish(PATIENCE)
    assert sum(counted) == 10


def test_a_pipe_that_somebody_has_made_nonblocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = LogWriter(pipe.output, told)
    writer.start()
    writer.write("y" * 50_000 + "\n")
    writer.write("end\n")
    assert read_until(pipe, "end\n") == "y" * 50_000 + "\nend\n"


def test_it_is_reopened_between_two_lines_even_if_they_are_written_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(str(path))
    writer = LogWriter(file, told)
    writer.write("before\n")
    path.rename(tmp_path / "old")
    writer.reopen(lambda error: f"reopened {error}\n")
    writer.write("after\n")
    writer.start()
    assert writer.finish(PATIENCE)
    file.close()
    assert (tmp_path / "old").read_text() == "before\n"
    assert path.read_text() == "reopened None\nafter\n"


def test_what_cannot_be_reopened_goes_on_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    file = LogFile(str(tmp_path / "logs" / "log"))
    writer = LogWriter(file, told)
    (tmp_path / "logs").rename(tmp_path / "old")
    writer.reopen(lambda error: f"not reopened: {error and error.strerror}\n")
    assert writer.finish()
    file.close()
    assert (tmp_path / "old" / "log").read_text() == "not reopened: No such file or directory\n"


def test_letters_that_an_encoding_lacks_are_escaped(pipe: Pipe) -> None:
    writer = LogWriter(pipe.output, told, encoding="ascii")
    writer.write("Zoë \ud800\n")
    assert writer.finish()
    assert pipe.read() == "Zo\\xeb \\ud800\n"


def test_the_lines_of_one_turn_are_one_write(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    written = os.write

    def write(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return written(descriptor, data)

    monkeypatch.setattr(log_writer.os, "write", write)
    writer = LogWriter(pipe.output, told)
    writer.start()
    until(lambda: writer._is_waiting)
    with writer._changed:  # the thread has no turn meanwhile
        for number in range(200):
            writer.write(f"{number}\n")
    assert read_until(pipe, "199\n") == "".join(f"{number}\n" for number in range(200))
    assert len(sizes) == 1


def test_a_line_in_the_quiet_is_not_left_lying(pipe: Pipe) -> None:
    """Whoever hangs after it can be found by it."""
    writer = LogWriter(pipe.output, told)
    writer.start()
    for number in range(50):
        until(lambda: writer._is_waiting)
        writer.write(f"{number}\n")
        assert read_until(pipe, "\n") == f"{number}\n"


def test_of_several_threads_no_line_is_lost_and_each_keeps_its_order(pipe: Pipe) -> None:
    writer = LogWriter(pipe.output, told)
    writer.start()
    names = "abc"

    def log(name: str) -> None:
        for number in range(2000):
            writer.write(f"{name} {number}\n")

    threads = [threading.Thread(target=log, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    text = ""
    while text.count("\n") < 2000 * len(names):
        text += pipe.read()
    for thread in threads:
        thread.join()
    lines = text.splitlines()
    for name in names:
        assert [x for x in lines if x[0] == name] == [f"{name} {n}" for n in range(2000)]


def test_what_a_signals_handler_logs_has_its_place(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it comes, lines are being taken in: it neither waits for them nor goes before them."""
    writer = LogWriter(pipe.output, told)
    encoded = LogWriter._encoded
    handlers = ["signal\n"]

    def interrupted(self: LogWriter, text: str) -> bytes:
        for _ in range(len(handlers)):
            for line in [handlers.pop()] * 100:
                writer.write(line)
        return encoded(self, text)

    monkeypatch.setattr(LogWriter, "_encoded", interrupted)
    writer.write("a\n")
    writer.write("b\n")
    assert writer.finish()
    assert pipe.read() == "a\nb\n" + "signal\n" * 100


def test_what_is_lost_while_nobody_reads_is_counted_at_once(pipe: Pipe) -> None:
    counted: list[int] = []
    writer = LogWriter(pipe.output, told, counted.append, most=1000)
    writer.start()
    lines = 0
    while not counted:
        writer.write("x" * 99 + "\n")
        lines += 1
    before = sum(counted)
    for _ in range(10):
        writer.write("y\n")
    assert sum(counted) == before + 10
    assert lines < 2000
