"""A test kit for programs that join a mesh: a CA and logs in memory, members, handshakes, a clock, forged identities.

Needs no process, port, file, reactor or test framework; keys are of P-256, which takes no time.
docs/TESTING.md shows how it is used.
"""

from twisted_mesh.testing.at_once import at_once
from twisted_mesh.testing.clock import Clock
from twisted_mesh.testing.forgery import Extensions, forge, names
from twisted_mesh.testing.member import Member, Shaken, shake_hands
from twisted_mesh.testing.memory_ca import FORGERIES, MemoryCa
from twisted_mesh.testing.memory_log import MemoryLog, list_of, with_receipts

__all__ = [
    "FORGERIES",
    "Clock",
    "Extensions",
    "Member",
    "MemoryCa",
    "MemoryLog",
    "Shaken",
    "at_once",
    "forge",
    "list_of",
    "names",
    "shake_hands",
    "with_receipts",
]
