"""Who watches and may not, and memories that cannot be written: what each side says first."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.address import IPv4Address

from pki.errors import PkiError
from pki.policy.policy import Action, permit
from pki.policy.principal import workload
from tests.authorities import BACKEND
from tests.first_lines.row import FirstLine
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.state.memory import Memory
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.status_port import clear_way, refuse_public


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except (PkiError, SystemExit) as error:
        return str(error)
    return "it was let in"


def status_for_all(directory: Path) -> str:
    address = IPv4Address("TCP", "0.0.0.0", 9100)
    return refusal(lambda: refuse_public(address, ":9100"))


def long_status(directory: Path) -> str:
    return refusal(lambda: clear_way(f"unix:{directory}/{'long' * 30}"))


def no_monitor(directory: Path) -> str:
    return refusal(lambda: permit(workload(BACKEND, 1), Action.METRICS))


def foreign_monitor(directory: Path) -> str:
    words = ["--monitor", "spiffe://other.example/prometheus"]
    return refusal(lambda: Options().parseOptions(words))


def unwritten(number: int) -> Callable[[Path], str]:
    def say(directory: Path) -> str:
        log, path = RecordingLog(), directory / "witness"
        memory = Memory("witness", path, "It is kept in memory only", "witness-not-kept", log=log)
        with memory.writing():
            raise OSError(number, os.strerror(number), str(path))
        return log.all_text()

    return say


def in_the_way(directory: Path) -> str:
    (directory / "crls").write_text("no directory")
    numbers = SeenCrlNumbers(directory / "crls" / "a.json")
    numbers.remember("file:a", {"issuer": 1})
    problem = numbers.memory.problem
    return str(problem) if problem is not None else "it was written"


ROWS = (
    FirstLine(
        "--status would be there for other machines",
        "ca",
        r"--status :9100 can be reached from other machines, and whoever asks there needs no proof",
        r"write 127\.0\.0\.1:PORT, \[::1\]:PORT or unix:PATH, .*--monitor",
        status_for_all,
    ),
    FirstLine(
        "the socket of --status has too long a path",
        "ca",
        r"the socket's path /\S+ is too long for a unix socket: \d+ bytes, and \d+ are the most",
        r"choose a shorter --status",
        long_status,
    ),
    FirstLine(
        "somebody without the right reads metrics",
        "ca",
        r"spiffe://\S+/service/backend may not do metrics",
        r"that is for administrators and whoever a --monitor of the CA names",
        no_monitor,
    ),
    FirstLine(
        "--monitor names another trust domain",
        "ca",
        r"--monitor spiffe://other\.example/prometheus is not of",
        r"--trust-domain mesh\.local",
        foreign_monitor,
    ),
    FirstLine(
        "no space is left for what is remembered",
        "server",
        r"/\S+/witness cannot be written \(No space left on device\)",
        r"free some space there",
        unwritten(errno.ENOSPC),
    ),
    FirstLine(
        "what is remembered is on a read-only disk",
        "server",
        r"/\S+/witness cannot be written \(Read-only file system\)",
        r"mount it so that it can be written",
        unwritten(errno.EROFS),
    ),
    FirstLine(
        "what is remembered belongs to somebody else",
        "server",
        r"/\S+/witness cannot be written \(Permission denied\)",
        r"give it to the user that this runs as \(chown\)",
        unwritten(errno.EACCES),
    ),
    FirstLine(
        "a file is in the way of what is remembered",
        "server",
        r"/\S+/crls cannot be written \(File exists\)",
        r"move what is there out of the way: a directory is needed",
        in_the_way,
    ),
)
