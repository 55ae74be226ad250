"""PKCS #11 modules: shared libraries, loaded once in a process, and initialised anew where nothing else helps."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from twisted_mesh.keystores.errors import KeyStoreAway
from twisted_mesh.pkcs11.functions import Library

#: Seconds that calls in progress have to return before the module is initialised anew.
PATIENCE = 2.0
#: Seconds between two such starts of a module, and while somebody's token in it works.
_PAUSE, _LONG_PAUSE = 1.0, 30.0
#: Seconds for which a token that has worked counts as one that works.
_WORKS = 10.0


@define(eq=False, repr=False)
class Module:
    """One, which all stores share whose tokens it reaches. All of it is called on threads that may wait."""

    path: str
    generation: int = field(default=0, init=False)
    """How often it was initialised: sessions and objects of an earlier time are void."""
    _library: Library | None = field(default=None, init=False)
    _is_open: bool = field(default=False, init=False)
    _pid: int = field(default=0, init=False)
    _inside: int = field(default=0, init=False)
    """Calls in progress."""
    _is_closing: bool = field(default=False, init=False)
    _renewed_at: float = field(default=-_LONG_PAUSE, init=False)
    _worked_at: dict[object, float] = field(factory=dict, init=False)
    _users: set[object] = field(factory=set, init=False)
    _changed: threading.Condition = field(factory=threading.Condition, init=False)
    _alone: threading.RLock = field(factory=threading.RLock, init=False)

    def use(self, user: object) -> None:
        """``user`` has a token in it, until :meth:`leave`."""
        with self._changed:
            self._users.add(user)

    def leave(self, user: object) -> None:
        """The last who leaves closes it, if no call hangs in it."""
        with self._changed:
            self._users.discard(user)
            self._worked_at.pop(user, None)
            if not self._users and self._is_open and not self._inside:
                self._finalize()

    def worked(self, user: object) -> None:
        """``user``'s token has answered."""
        self._worked_at[user] = time.monotonic()

    @contextmanager
    def call(self) -> Iterator[tuple[Library, int]]:
        """The library, and its generation: it is not initialised anew meanwhile."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._is_closing, PATIENCE * 2):
                raise _hangs(self.path)
            library = self._opened()
            self._inside += 1
            generation = self.generation
        try:
            if library.is_threaded:
                yield library, generation
            else:
                with self._alone:
                    yield library, generation
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def renew(self, seen: int, user: object, *, at_once: bool) -> bool:
        """Initialise it anew, unless that has been done since ``seen``. Whether it is another now.

        Other tokens' sessions end with it: while one of those works, and unless ``at_once``, it is not done often.
        Raises :class:`KeyStoreAway` where a call hangs in it.
        """
        with self._changed:
            if self.generation != seen:
                return True
            now = time.monotonic()
            others = any(
                now - at < _WORKS for other, at in self._worked_at.items() if other is not user
            )
            pause = _LONG_PAUSE if others else 0.0 if at_once else _PAUSE
            if now - self._renewed_at < pause or self._is_closing:
                return False
            self._is_closing = True
            try:
                if not self._changed.wait_for(lambda: not self._inside, PATIENCE):
                    raise _hangs(self.path)
                self._renewed_at = time.monotonic()
                if self._is_open:
                    self._finalize()
                self._opened()
            finally:
                self._is_closing = False
                self._changed.notify_all()
            return True

    def _opened(self) -> Library:
        """After a fork the child has a module that nobody has initialised (PKCS #11 section 5.4)."""
        if self._library is not None and self._is_open and self._pid == os.getpid():
            return self._library
        if self._library is None:
            self._library = Library(self.path)
        else:
            self._library.initialize()
        self._is_open, self._pid = True, os.getpid()
        self.generation += 1
        return self._library

    def _finalize(self) -> None:
        self._is_open = False
        if self._library is not None:
            self._library.finalize()


_modules: dict[str, Module] = {}
_modules_lock = threading.Lock()


def module_at(path: str) -> Module:
    """The one of that file. It is loaded by the first call that it is used for, and never unloaded."""
    with _modules_lock:
        return _modules.setdefault(os.path.realpath(path), Module(path))


def _hangs(path: str) -> KeyStoreAway:
    return KeyStoreAway(
        f"a call hangs in the PKCS #11 module {path}, which cannot be initialised anew meanwhile: see whether the "
        "token works; if it does, start this program anew"
    )
