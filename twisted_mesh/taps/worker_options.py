"""``--workers``: the option, and what of a command line is a worker's too."""

import getopt
import os
from collections.abc import Sequence
from typing import Any

from pki.errors import Malformed, discreet
from twisted_mesh.taps.identity_options import IdentityOptions

#: More than any machine has use for: each takes 80 MB and a certificate of its own.
MOST_WORKERS = 64
WORKERS: list[Any] = [
    "workers",
    None,
    "1",
    "processes that serve, each with a key of its own; with more than 1, this one supervises them",
]
#: What is the parent's alone: it speaks for all, and what buys a certificate buys its.
_OF_PARENT = frozenset(
    ("workers", "status", "join-token", "join-token-file", "attest", "log-level")
)


class WorkerOptions(IdentityOptions):
    """Options of a service that may be several processes."""

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        self["workers"] = _number(self["workers"])
        super().postOptions()
        if self.has_workers:
            if (getattr(self, "parent", None) or {}).get("chroot"):
                raise Malformed(
                    "--workers starts Python again for each, which is not there after --chroot: leave one out"
                )
            self.texts = self.read_texts()

    @property
    def has_workers(self) -> bool:
        """Whether this process is the parent of those that serve."""
        return bool(self["workers"] > 1)

    @property
    def words_of_worker(self) -> Sequence[str]:
        """The command line of the service again, for a worker."""
        found, _ = getopt.getopt(list(self.words), self.shortOpt, self.longOpt)
        words = []
        for option, value in found:
            name = self.synonyms.get(option.lstrip("-"), option.lstrip("-")).replace("_", "-")
            if name not in _OF_PARENT:
                takes_value = f"{name}=" in self.longOpt
                words.append(f"--{name}={value}" if takes_value else f"--{name}")
        return words

    def share(self, most: int) -> int:
        """Of so many connections, those that this process may have. Raises :class:`Malformed` for too few."""
        if self.has_workers and most < self["workers"]:
            raise Malformed(
                f"{most} connections at most cannot be shared out among {self['workers']} workers: each needs one"
            )
        return most if self.seat is None else self.seat.share(most)


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 4 and 0 < int(text) <= MOST_WORKERS:
        return int(text)
    raise Malformed(
        f"--workers {discreet(text, 20)}: it takes a number from 1, which is one process and no other, to "
        f"{MOST_WORKERS}; this machine has {os.cpu_count()} cores, and more workers than these are of no use"
    )
