"""A command's coroutine on the reactor: each in a process of its own, since a reactor runs once."""

import subprocess
import sys

import pytest

_PROGRAM = """
import os, signal, sys
from http import HTTPStatus
from click import Abort
from twisted.internet.defer import Deferred
from pki.errors import Malformed, Problem
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli import running
from twisted_mesh.state.directory import StateError
from twisted_mesh.tls.alerts import Unreachable

async def yes(): return 0
async def no(): return 1
async def malformed(): raise Malformed("it says something else")
async def unwritable(): raise StateError("nothing can be written")
async def away(): raise Unreachable(Problem("unreachable", "nobody is there"))
async def refused(): raise CaRefused(HTTPStatus.FORBIDDEN, [Problem("not-authorized", "not you")])
async def broken(): raise CaRefused(HTTPStatus.BAD_GATEWAY, [Problem("unavailable", "later")])
async def bug(): raise ValueError("a bug")
async def interrupted():
    running.reactor.callLater(0, os.kill, os.getpid(), signal.SIGINT)
    try:
        await Deferred()
    finally:
        print("tidied up", running.reactor.running)

try:
    status = running.run("mesh-test", globals()[sys.argv[1]])
except (Abort, ValueError) as error:
    status = type(error).__name__
print(status)
"""


@pytest.mark.parametrize(
    ("work", "printed", "said"),
    [
        ("yes", "0", ""),
        ("no", "1", ""),
        ("malformed", "1", "mesh-test: it says something else"),
        ("unwritable", "2", "mesh-test: nothing can be written"),
        ("away", "3", "mesh-test: nobody is there"),
        ("refused", "1", "mesh-test: not-authorized: not you"),
        ("broken", "3", "mesh-test: unavailable: later"),
        ("bug", "ValueError", ""),
        ("interrupted", "tidied up True\nAbort", ""),
    ],
)
def test_a_run_ends_with_a_status_and_a_sentence(work: str, printed: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, work], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr.strip()) == (printed, said)
