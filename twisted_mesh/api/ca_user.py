"""Whose the process at a CA's socket may be. Imports neither Twisted nor TLS.

Nothing on a unix socket proves a CA but its user. In a directory where others can write, anybody can found one.
"""

import os
import pwd
import socket
import stat
from collections.abc import Collection
from pathlib import Path

from attrs import evolve, frozen

from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet, printable
from twisted_mesh.attest.credentials import peer_uid

_ROOT = 0
_LARGEST_UID = 2**32 - 2


class ForeignCa(PkiError):
    """Somebody answers, or has made the place, who is not known to be the CA's user."""

    code = Code.FOREIGN_CA


@frozen
class CaUser:
    """Who may be the CA at a socket."""

    named: int | None = None
    """The uid of ``--ca-user``: then nobody else may, but root."""
    what: str = "the CA"
    """Who is meant to be there: an agent's socket is as little a proof."""
    elsewhere: str = "another --state-dir or --ca-url"
    option: str = "--ca-user"
    """By what a user is named."""

    @classmethod
    def parse(cls, text: str | None) -> "CaUser":
        """A user's name or number. Raises :class:`Malformed`."""
        return cls() if text is None else cls().of(text)

    def of(self, text: str) -> "CaUser":
        """The same place, where that user may be: by name or number. Raises :class:`Malformed`."""
        if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_UID:
            return evolve(self, named=int(text))
        try:
            return evolve(self, named=pwd.getpwnam(text).pw_uid)
        except (KeyError, ValueError):
            raise Malformed(
                f"{self.option} {discreet(text, 60)!r} is no user of this machine: write a name or a number"
            ) from None

    @property
    def known(self) -> set[int]:
        """Who may be, whatever the directory says."""
        return {_ROOT, os.geteuid() if self.named is None else self.named}

    def at(self, directory: Path) -> set[int]:
        """Who may be the CA whose socket is in ``directory``. Raises :class:`ForeignCa`.

        The directory's owner may, where only root, or we ourselves, can have given it to them: it and what is
        above it is theirs up to a directory that nobody else can write to. So not in one that is shared, like
        ``/tmp``.
        """
        try:
            path = directory.resolve(strict=True)
            owner = path.stat().st_uid
            if owner in self.known:
                return self.known
            if self.named is None and _was_given(path, owner, self.known):
                return self.known | {owner}
        except OSError:
            return self.known  # not to be looked at, or not there: whoever connects hears of it
        raise ForeignCa(
            f"{directory} belongs to {_spoken(owner)}, and {_as_far_as_known(self.known)} may be {self.what} there: "
            f"name its user with {self.option}, or {self.elsewhere}"
        )

    def look(self, sock: socket.socket, path: Path, may_be: Collection[int]) -> None:
        """See whose the process at the other end of ``sock`` is. Raises :class:`ForeignCa` where none of those."""
        uid = peer_uid(sock)
        if uid not in may_be:
            raise ForeignCa(
                f"what answers at {path} runs as {_spoken(uid)}, and {_as_far_as_known(may_be)} may be "
                f"{self.what} there: name its user with {self.option}"
            )


def _was_given(path: Path, owner: int, trusted: Collection[int]) -> bool:
    for above in path.parents:
        found = above.stat()
        if found.st_uid == owner:
            continue
        return found.st_uid in trusted and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return False


def _as_far_as_known(uids: Collection[int]) -> str:
    return " or ".join(_spoken(uid) for uid in sorted(uids))


def _spoken(uid: int) -> str:
    """By name, where there is one."""
    try:
        return printable(pwd.getpwuid(uid).pw_name, 60)
    except KeyError:
        return f"user {uid}"
