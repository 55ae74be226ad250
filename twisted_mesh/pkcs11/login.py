"""Logging in to a token: once for all sessions, and never a second time with a PIN that was wrong.

A token counts wrong PINs and locks itself after a few, which takes its security officer to undo: whoever tries again by
itself spends what a person would need.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from attrs import define, field
from pkcs11 import Session, Token, TokenFlag, exceptions

from pki.errors import PkiError
from twisted_mesh.pkcs11.failures import TokenRefused
from twisted_mesh.pkcs11.functions import Library
from twisted_mesh.pkcs11.tokens import described

_UNLOCK = (
    "its security officer can unlock it (as with pkcs11-tool --init-pin --login --login-type so)"
)
_AGAIN = "put the right one there, which is tried by itself; or send this program a SIGHUP, and it is tried once more"
#: What a token answers to a PIN that it does not take.
WRONG = (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange)


@define(eq=False, repr=False)
class Login:
    """Of one store. All of it is called on threads, by turns, but for :meth:`try_again`, which waits for none."""

    pin: Callable[[], bytes | None]
    """Reads it. Raises :class:`PkiError`."""
    _salt: bytes = field(factory=lambda: secrets.token_bytes(32), init=False)
    _wrong: dict[bytes, str] = field(factory=dict, init=False)
    """What the token had to say of PINs that it did not take."""
    _known: bytes | None = field(default=None, init=False)
    """The PIN that there was when a person asked last, or the first one, as a digest."""
    _dares: bool = field(default=False, init=False)
    """Whether a person has asked to try, be it for the last time."""
    _lock: threading.RLock = field(factory=threading.RLock, init=False)

    def ensure(self, library: Library, token: Token, session: Session) -> None:
        """Be logged in. Raises :class:`TokenRefused`, and what the binding raises."""
        if TokenFlag.LOGIN_REQUIRED in token.flags:
            with self._lock:
                if not library.is_logged_in(session):
                    self._log_in(library, token, session)

    def try_again(self) -> bool:
        """A person asks for it: wrong PINs are forgotten, and the last try may be used; whether it is another PIN."""
        self._wrong, self._dares = {}, True
        before, now = self._known, None
        with suppress(PkiError):  # why it cannot be read is told by whoever logs in
            now = self._digest(self.pin() or b"")
        self._known = now or before
        return None not in (before, now) and before != now

    def confirm(self, token: Token) -> str | None:
        """The PIN once more, for a key that wants it with each signature (CKA_ALWAYS_AUTHENTICATE)."""
        pin = self._read(token)
        if pin is not None and (told := self._digest(pin.encode())) in self._wrong:
            raise TokenRefused(self._wrong[told])
        return pin

    def refuse(self, token: Token) -> NoReturn:
        """What :meth:`confirm` has given was wrong. Raises :class:`TokenRefused`."""
        self._say_wrong(self._digest((self._read(token) or "").encode()), _wrong(token))

    def _log_in(self, library: Library, token: Token, session: Session) -> None:
        pin = self._read(token)
        if pin is None and TokenFlag.PROTECTED_AUTHENTICATION_PATH not in token.flags:
            raise TokenRefused(
                f"the token {described(token)} wants a PIN, and none is named: --token-pin-file, --token-pin-fd, or "
                "pin-source= in the URI"
            )
        told = self._digest((pin or "").encode())
        self._known = self._known or told
        if told in self._wrong:
            raise TokenRefused(self._wrong[told])
        self._look_at_flags(token)
        try:
            library.log_in(session, None if pin is None else pin.encode())
        except exceptions.UserAlreadyLoggedIn:
            pass  # through another store of the same token
        except WRONG:
            self._dares = False
            self._say_wrong(told, _wrong(token))
        except exceptions.PinLocked:
            self._say_wrong(told, f"the token {described(token)} is locked: {_UNLOCK}")
        except exceptions.PinExpired:
            self._say_wrong(
                told,
                f"the token {described(token)} says that the PIN has expired: set another (pkcs11-tool --change-pin)",
            )
        except exceptions.UserPinNotInitialized:
            raise _without_pin(token) from None
        self._dares = False

    def _look_at_flags(self, token: Token) -> None:
        """Before anything is tried."""
        flags = token.flags
        if TokenFlag.USER_PIN_INITIALIZED not in flags:
            raise _without_pin(token)
        if TokenFlag.USER_PIN_LOCKED in flags:
            raise TokenRefused(f"the token {described(token)} is locked: {_UNLOCK}")
        if TokenFlag.USER_PIN_FINAL_TRY in flags and not self._dares:
            raise TokenRefused(
                f"the token {described(token)} has one try left before it locks itself, and that is not used without "
                "a person who asks: see that the PIN is right (pkcs11-tool --login --test), or send this program a "
                "SIGHUP, and it is tried"
            )

    def _say_wrong(self, told: bytes, words: str) -> NoReturn:
        self._wrong[told] = words
        raise TokenRefused(words) from None

    def _read(self, token: Token) -> str | None:
        try:
            pin = self.pin()
            return None if pin is None else pin.decode()
        except PkiError as error:
            raise TokenRefused(f"the token {described(token)} wants its PIN: {error}") from None
        except UnicodeDecodeError:
            raise TokenRefused("the token's PIN is not UTF-8, as PKCS #11 has PINs") from None

    def _digest(self, pin: bytes) -> bytes:
        return hmac.digest(self._salt, pin, hashlib.sha256)


def _wrong(token: Token) -> str:
    return (
        f"the token {described(token)} says that the PIN is wrong; it is not tried again, as the token would lock "
        f"itself: {_AGAIN}"
    )


def _without_pin(token: Token) -> TokenRefused:
    return TokenRefused(
        f"the token {described(token)} has no user PIN yet: set one (pkcs11-tool --init-pin --login --login-type so)"
    )
