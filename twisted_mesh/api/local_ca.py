"""The CA of this machine: its socket, and whose the process at the other end must be before it is asked anything.

Nothing on a unix socket proves a CA but its user. In a directory where others can write, anybody can found one.
"""

import os
import pwd
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

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

    @classmethod
    def parse(cls, text: str | None) -> "CaUser":
        """A user's name or number. Raises :class:`Malformed`."""
        if text is None:
            return cls()
        if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_UID:
            return cls(int(text))
        try:
            return cls(pwd.getpwnam(text).pw_uid)
        except (KeyError, ValueError):
            raise Malformed(
                f"--ca-user {discreet(text, 60)!r} is no user of this machine: write a name or a number"
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
            f"name its user with --ca-user, or {self.elsewhere}"
        )


def _was_given(path: Path, owner: int, trusted: Collection[int]) -> bool:
    for above in path.parents:
        found = above.stat()
        if found.st_uid == owner:
            continue
        return found.st_uid in trusted and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return False


@implementer(IStreamClientEndpoint)
@define(eq=False)
class LocalCaEndpoint:
    """Connects to a CA's socket, and fails with :class:`ForeignCa` before a byte is sent to anybody else."""

    reactor: Any
    path: Path
    user: CaUser
    timeout: float

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once it is known whose the other end is."""
        try:
            may_be = self.user.at(self.path.parent)
        except ForeignCa as error:
            return fail(error)
        endpoint = UNIXClientEndpoint(self.reactor, str(self.path), timeout=self.timeout)
        connecting: Deferred[IProtocol] = endpoint.connect(factory)
        return connecting.addCallback(self._look, may_be)

    def _look(self, protocol: Any, may_be: Collection[int]) -> IProtocol:
        transport = protocol.transport
        try:
            uid = peer_uid(transport.getHandle())
            if uid not in may_be:
                raise ForeignCa(
                    f"what answers at {self.path} runs as {_spoken(uid)}, and {_as_far_as_known(may_be)} may be "
                    f"{self.user.what} there: name its user with --ca-user"
                )
        except BaseException:
            transport.abortConnection()
            raise
        connected: IProtocol = protocol
        return connected


def _as_far_as_known(uids: Collection[int]) -> str:
    return " or ".join(_spoken(uid) for uid in sorted(uids))


def _spoken(uid: int) -> str:
    """By name, where there is one."""
    try:
        return printable(pwd.getpwuid(uid).pw_name, 60)
    except KeyError:
        return f"user {uid}"
