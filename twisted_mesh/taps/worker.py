"""A worker: a process that its parent starts, which serves what the parent's command line says.

It is of no use to anybody else: what it is comes by the channel.
"""

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress

from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner
from twisted.python.reflect import namedAny

from pki.errors import PkiError
from twisted_mesh import observe
from twisted_mesh.http.json import parse_json
from twisted_mesh.runtime import garbage
from twisted_mesh.runtime.open_files import hold_the_standard_ones
from twisted_mesh.taps.lifecycle import say_at_the_end
from twisted_mesh.workers.channel import Frames
from twisted_mesh.workers.messages import CHANNEL, MOST_TO_WORKER, Assignment
from twisted_mesh.workers.seat import Seat

#: Which module has the options and the service of a program.
_SERVICES = {"mesh-proxy": "twisted_mesh.taps.proxy", "mesh-server": "twisted_mesh.taps.server"}
#: See prctl(2).
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process as soon as that one ends, where it can; now, if it has."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def first_message(channel: socket.socket) -> Assignment:
    """What the parent says first, which is waited for. Raises :class:`PkiError`, and EOFError without a parent."""
    frames = Frames(MOST_TO_WORKER)
    while True:
        # No more of it is read here than belongs to the first: the rest is the reactor's.
        data = channel.recv(frames.wanted)
        if not data:
            raise EOFError
        if found := frames.feed(data):
            return parse_json(found[0], Assignment)


def _parent_is_gone() -> None:
    """Nobody tells any more who is revoked, and nobody renews: serve nobody from now on."""
    say_at_the_end("the parent of this worker is gone, and so is the worker\n")
    observe.finish_writing()
    os._exit(1)


def main() -> int:
    """Serve until the parent says so; the exit status. Raises :class:`SystemExit` with a sentence."""
    hold_the_standard_ones()
    garbage.seldom()
    try:
        channel = socket.socket(fileno=CHANNEL)
        channel.set_inheritable(False)
        assignment = first_message(channel)
    except (OSError, EOFError, PkiError):
        sys.stderr.write(
            "this is started by mesh-server and mesh-proxy (--workers), and by nobody else\n"
        )
        return 1
    die_with(assignment.parent)
    sockets = [
        socket.socket(fileno=number)
        for number in range(CHANNEL + 1, CHANNEL + 1 + assignment.sockets)
    ]
    for one in sockets:
        one.set_inheritable(False)
    module = namedAny(_SERVICES[assignment.program])
    options = module.Options()
    options.sit_at(Seat(assignment, channel, sockets, _parent_is_gone))
    options.parseOptions(assignment.words)
    observe.set_level(options["log-level"].level)
    observe.set_worker(assignment.number)
    observe.choose(assignment.program, options["log-format"])
    globalLogBeginner.beginLoggingTo([observe.chosen()])
    service = module.makeService(options)
    service.privilegedStartService()
    service.startService()
    from twisted.internet import reactor

    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    with suppress(ReactorNotRunning):
        reactor.run()
    return 0
