"""The process that a PID file means is signalled, and never another that has its number by now."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.errors import Malformed
from tests.running import PATIENCE
from twisted_mesh.files.command import NotTold
from twisted_mesh.files.pid_signal import PidFileSignal


@pytest.fixture
def service() -> Iterator["subprocess.Popen[bytes]"]:
    """It ends by any signal."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def file(tmp_path: Path, service: "subprocess.Popen[bytes]") -> Path:
    path = tmp_path / "service.pid"
    path.write_text(f"{service.pid}\n")
    return path


def hup(path: Path) -> PidFileSignal:
    return PidFileSignal(signal.SIGHUP, path)


def test_the_process_is_signalled_and_named(file: Path, service: "subprocess.Popen[bytes]") -> None:
    said = PidFileSignal.parse(f"USR1:{file}").send()
    assert service.wait(PATIENCE) == -signal.SIGUSR1
    assert re.fullmatch(rf"PID {service.pid} \(\S*/\w+\)", said)


def test_what_postgresql_writes_below_the_number_does_not_matter(
    file: Path, service: "subprocess.Popen[bytes]"
) -> None:
    file.write_text(f"{service.pid}\n/var/lib/postgresql/data\n1764370000\n5432\n")
    hup(file).send()
    assert service.wait(PATIENCE) == -signal.SIGHUP


def test_a_number_that_was_given_again_is_not_signalled(
    file: Path, service: "subprocess.Popen[bytes]"
) -> None:
    long_ago = time.time() - 3600
    os.utime(file, (long_ago, long_ago))  # its service has ended; this process began an hour later
    with pytest.raises(NotTold, match=r"is another process by now, started 3\d\d\d s after"):
        hup(file).send()
    assert service.poll() is None


def test_a_process_that_ends_meanwhile_takes_no_other_with_it(
    file: Path, service: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PidFileSignal._look_at

    def look(self: PidFileSignal, pid: int, written: float, owners: frozenset[int]) -> str:
        found = real(self, pid, written, owners)
        service.kill()
        service.wait()
        return found

    monkeypatch.setattr(PidFileSignal, "_look_at", look)
    sent: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *args: sent.append(args[1]))
    with pytest.raises(NotTold, match="has ended"):
        hup(file).send()
    assert sent == []


def test_one_that_has_ended_and_was_not_waited_for_is_not_running(
    file: Path, service: "subprocess.Popen[bytes]"
) -> None:
    service.kill()
    os.waitid(os.P_PID, service.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NotTold, match=r"(has ended|is not running)"):
        hup(file).send()


@pytest.mark.parametrize(
    "text",
    ["0", "1", "-1", "-{pid}", "+{pid}", "", "\n", "nginx", "{pid}x", "0x10", "4294967297", "१२"],
)
def test_what_is_no_pid_of_a_service_is_refused(
    file: Path, service: "subprocess.Popen[bytes]", text: str
) -> None:
    file.write_text(text.format(pid=service.pid))
    with pytest.raises(NotTold, match="holds no PID of a service"):
        hup(file).send()
    assert service.poll() is None


def test_our_own_number_is_refused(file: Path) -> None:
    file.write_text(str(os.getpid()))
    with pytest.raises(NotTold, match="holds no PID of a service"):
        hup(file).send()


def test_a_file_that_is_not_there_or_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotTold, match="start the service that writes it"):
        hup(tmp_path / "none.pid").send()
    with pytest.raises(NotTold, match="is no file"):
        hup(tmp_path).send()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotTold, match="is no file"):
        hup(tmp_path / "pipe").send()


def test_a_file_that_everybody_can_change_is_not_believed(
    file: Path, service: "subprocess.Popen[bytes]"
) -> None:
    file.chmod(0o666)
    with pytest.raises(NotTold, match="can be changed by everybody"):
        hup(file).send()
    file.chmod(0o644)
    file.parent.chmod(0o777)
    with pytest.raises(NotTold, match="can be changed by everybody"):
        hup(file).send()
    file.parent.chmod(0o755)
    assert service.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_another_users_file_names_that_users_processes_only(
    file: Path, service: "subprocess.Popen[bytes]"
) -> None:
    os.chown(file, 65534, 65534)
    with pytest.raises(NotTold, match="belongs to another user than PID"):
        hup(file).send()
    assert service.poll() is None
    theirs = subprocess.Popen(["sleep", "600"], user=65534)
    file.write_text(str(theirs.pid))
    hup(file).send()
    assert theirs.wait(PATIENCE) == -signal.SIGHUP


@pytest.mark.skipif(os.geteuid() != 0, reason="gives links away")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_link_of_another_users_leads_to_that_users_processes_only(
    file: Path, service: "subprocess.Popen[bytes]", tmp_path: Path, what: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    if what == "file":
        link = named = theirs / "service.pid"
        link.symlink_to(file)
    else:
        link = theirs / "run"
        link.symlink_to("../../" + file.parent.name)
        named = link / file.name
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(NotTold, match="a link on the way to it, belongs to another user than PID"):
        hup(named).send()
    assert service.poll() is None
    os.chown(link, 0, 0, follow_symlinks=False)  # root has chosen it: /var/run is such a link
    hup(named).send()
    assert service.wait(PATIENCE) == -signal.SIGHUP


def test_links_that_lead_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(NotTold, match="cannot be read"):
        hup(tmp_path / "one").send()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("HUP", "is no SIGNAL:PIDFILE"),
        ("HUP:", "is no SIGNAL:PIDFILE"),
        (":/run/nginx.pid", "is no SIGNAL:PIDFILE"),
        ("1:/run/nginx.pid", "is no signal that a service can heed"),
        ("KILL:/run/nginx.pid", "is no signal that a service can heed"),
        ("SIGSTOP:/run/nginx.pid", "is no signal that a service can heed"),
        ("RELOAD:/run/nginx.pid", "is no signal that a service can heed"),
    ],
)
def test_what_is_no_signal_is_refused_before_the_start(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=re.escape(said)):
        PidFileSignal.parse(text)


def test_both_spellings_mean_the_same() -> None:
    assert PidFileSignal.parse("SIGHUP:/a:b") == PidFileSignal.parse("HUP:/a:b")
