"""Getting at a token: a session where it is wanted, opened anew after whatever has closed it."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from attrs import define, field
from pkcs11 import PrivateKey, Session, Token, TokenFlag, exceptions

from pki.errors import PkiError
from pki.keys.pkcs11_uri import Pkcs11Uri
from twisted_mesh.keystores.errors import KeyStoreAway
from twisted_mesh.pkcs11.failures import (
    Cure,
    TokenAbsent,
    TokenRefused,
    away,
    cure_of,
    refused,
)
from twisted_mesh.pkcs11.functions import Library
from twisted_mesh.pkcs11.login import WRONG, Login
from twisted_mesh.pkcs11.module import Module
from twisted_mesh.pkcs11.tokens import find_token

T = TypeVar("T")

#: Seconds after a failure in which the next who asks gets the same answer.
_PAUSE = 0.5


class NoSession(Exception):
    """The token has no session left for one more thread; others have theirs."""


@define(eq=False, repr=False)
class Seat:
    """What one thread has: its session, and the keys that it has found by it."""

    session: Session | None = None
    token: Token | None = None
    library: Library | None = None
    generation: int = 0
    keys: dict[str, tuple[PrivateKey, bool]] = field(factory=dict)
    """By the URIs of references; and whether each signature of it wants the PIN."""

    def open(self) -> tuple[Session, Token]:
        """While work is done by it."""
        if self.session is None or self.token is None:
            raise AssertionError("work without a session")
        return self.session, self.token

    def searchable(self) -> Session:
        """The session, if it is alive and logged in: private keys are hidden from who is not.

        Somebody else may have logged us out. Raises as if they were looked at.
        """
        session, token = self.open()
        wants = TokenFlag.LOGIN_REQUIRED in token.flags
        if wants and self.library is not None and not self.library.is_logged_in(session):
            raise exceptions.UserNotLoggedIn
        return session

    def is_logged_out(self) -> None:
        """The token says so."""
        if self.library is not None and self.token is not None:
            self.library.is_logged_out(self.token.slot.slot_id)

    def drop(self) -> None:
        """Forget the session: it is void, or will be."""
        self.keys.clear()
        self.session = self.token = None

    def close(self) -> None:
        """Close the session, if it can be."""
        session = self.session
        self.drop()
        if session is not None:
            # It was closed, or its token is gone.
            with suppress(exceptions.PKCS11Error):
                session.close()


Work = Callable[[Seat], T]


@define(eq=False, repr=False)
class Access:
    """One token's, for all threads."""

    module: Module
    uri: Pkcs11Uri
    login: Login
    _failure: PkiError | None = field(default=None, init=False)
    _failed_at: float = field(default=0.0, init=False)
    _seats: set[Seat] = field(factory=set, init=False)
    """Those that have a session."""

    def perform(self, seat: Seat, work: Work[T], *, at_once: bool = False) -> T:
        """What ``work`` gives, which may be done again: with a fresh session, and then with the module started anew.

        Raises :class:`KeyStoreAway` and :class:`KeyStoreRefused`. ``at_once``: whatever has failed a moment ago.
        """
        failure = self._failure
        if failure is not None and not at_once and time.monotonic() - self._failed_at < _PAUSE:
            raise failure
        try:
            result = self._tries(seat, work, at_once)
        except (KeyStoreAway, TokenRefused) as error:
            self._failed_at, self._failure = time.monotonic(), error
            raise
        self._failure = None
        self.module.worked(self)
        return result

    def _tries(self, seat: Seat, work: Work[T], at_once: bool) -> T:
        is_anew = False
        for attempt in range(3):
            generation = self.module.generation
            try:
                with self.module.call() as (library, generation):
                    if seat.generation != generation:
                        seat.drop()
                    if seat.session is None:
                        self._open(seat, library, generation)
                    return work(seat)
            except WRONG:
                if seat.token is None:
                    raise
                self.login.refuse(seat.token)
            except exceptions.SessionCount as error:
                if self._seats:
                    raise NoSession from None
                raise away(error) from None
            except (exceptions.PKCS11Error, TokenAbsent) as error:
                cure = cure_of(error)
                if cure is Cure.PERSON:
                    raise refused(error) from None
                self._seats.discard(seat)
                if isinstance(error, exceptions.UserNotLoggedIn):
                    seat.is_logged_out()
                if cure is Cure.SESSION:
                    seat.close()
                else:
                    seat.drop()
                worse = attempt > 0 or cure is Cure.MODULE
                if attempt == 2 or (worse and is_anew):
                    raise away(error) from None
                if worse:
                    is_anew = self._renew(generation, at_once)
                    if not is_anew:
                        raise away(error) from None
        raise AssertionError("it has ended")

    def _open(self, seat: Seat, library: Library, generation: int) -> None:
        token = find_token(library, self.uri)
        session = token.open()
        try:
            self.login.ensure(library, token, session)
        except BaseException:
            with suppress(exceptions.PKCS11Error):
                session.close()
            raise
        seat.session, seat.token, seat.generation = session, token, generation
        seat.library = library
        self._seats.add(seat)

    @property
    def slot_id(self) -> int | None:
        """The slot that the token is in; None while nobody has a session."""
        tokens = [seat.token for seat in self._seats if seat.token is not None]
        return tokens[0].slot.slot_id if tokens else None

    def close(self, seat: Seat) -> None:
        """Its thread ends."""
        if seat.session is not None:
            with self.module.call() as (_, generation):
                if seat.generation == generation:
                    seat.close()
        self._seats.discard(seat)

    def _renew(self, generation: int, at_once: bool) -> bool:
        try:
            return self.module.renew(generation, self, at_once=at_once)
        except exceptions.PKCS11Error as error:
            raise away(error) from None
