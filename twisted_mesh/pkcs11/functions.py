"""The calls of a module that the binding has not, or makes in a way that does not do.

It initialises a module as for one thread alone: SoftHSM takes no locks then, and eight threads that sign crash it. It
logs in by a session that it leaves open where the PIN is wrong, and cannot say whether a session is logged in.
"""

import ctypes
from contextlib import suppress
from typing import Any

from pkcs11 import PROTECTED_AUTH, Session, exceptions
from pkcs11._pkcs11 import lib

_OK, _ARGUMENTS_BAD, _CANT_LOCK, _ALREADY_INITIALIZED = 0x00, 0x07, 0x0A, 0x191
_OS_LOCKING_OK = 2
_USER = 1
#: CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS.
_LOGGED_IN = (1, 3)
#: CK_RV of C_Login that have a class there, and of any call.
_ANSWERS: dict[int, type[exceptions.PKCS11Error]] = {
    0x05: exceptions.GeneralError,
    0x06: exceptions.FunctionFailed,
    0x30: exceptions.DeviceError,
    0x31: exceptions.DeviceMemory,
    0x32: exceptions.DeviceRemoved,
    0xA0: exceptions.PinIncorrect,
    0xA1: exceptions.PinInvalid,
    0xA2: exceptions.PinLenRange,
    0xA3: exceptions.PinExpired,
    0xA4: exceptions.PinLocked,
    0xB0: exceptions.SessionClosed,
    0xB3: exceptions.SessionHandleInvalid,
    0xE0: exceptions.TokenNotPresent,
    0x100: exceptions.UserAlreadyLoggedIn,
    0x102: exceptions.UserPinNotInitialized,
    0x104: exceptions.AnotherUserAlreadyLoggedIn,
}


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = (
        ("slot", ctypes.c_ulong),
        ("state", ctypes.c_ulong),
        ("flags", ctypes.c_ulong),
        ("device_error", ctypes.c_ulong),
    )


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST of version 2.01 and all later ones, up to what is called here."""

    _fields_ = (
        ("major", ctypes.c_ubyte),
        ("minor", ctypes.c_ubyte),
        ("calls", ctypes.c_void_p * 19),
    )


# Where they stand in the list.
_INITIALIZE, _FINALIZE, _SESSION_INFO, _LOGIN = 0, 1, 15, 18
_WORD, _POINTER = ctypes.c_ulong, ctypes.c_void_p


class Library(lib):
    """The binding's, with these. The interpreter goes on meanwhile, as in the binding's own."""

    is_threaded: bool = True
    """Whether the module takes calls of several threads at once."""
    _is_one: bool = True
    """Whether the module has one list of functions. p11-kit's client gives everybody one of their own, which stands for
    a connection of its own: then nothing can be called beside the binding."""
    _logins: dict[int, Session]
    """The sessions that the binding has logged in by, by their slots, where it has to."""

    def initialize(self) -> None:
        """For several threads, if it can. The binding calls this once it has loaded the module."""
        self._logins = {}
        self._is_one = _address(self._list()) == _address(self._list())
        if not self._is_one:
            self.is_threaded = False
            super().initialize()
            return
        call = self._function(_INITIALIZE, _POINTER)
        arguments = _InitializeArgs(flags=_OS_LOCKING_OK)
        answer = call(ctypes.addressof(arguments))
        if answer in (_CANT_LOCK, _ARGUMENTS_BAD):
            self.is_threaded = False
            answer = call(None)
        if answer != _ALREADY_INITIALIZED:
            _check(answer)

    def finalize(self) -> None:
        """Whatever it answers: it is initialised anew afterwards, or never."""
        self._logins = {}
        if self._is_one:
            self._function(_FINALIZE, _POINTER)(None)
        else:
            with suppress(exceptions.PKCS11Error):
                super().finalize()

    def is_logged_in(self, session: Session) -> bool:
        """Whether it is, by whatever session of the token that was done. Raises where the session is void.

        A search is asked for after that: one that does not begin leaves the binding with an error that nobody catches.
        """
        if not self._is_one:
            session.token.slot.get_token()  # raises where nobody is there any more
            return session.token.slot.slot_id in self._logins
        info = _SessionInfo()
        call = self._function(_SESSION_INFO, _WORD, _POINTER)
        _check(call(_handle(session), ctypes.addressof(info)))
        return info.state in _LOGGED_IN

    def log_in(self, session: Session, pin: bytes | None) -> None:
        """All sessions of the token, by one of them; without a PIN the token asks for it itself."""
        if not self._is_one:
            token = session.token
            opened = token.open(user_pin=PROTECTED_AUTH if pin is None else pin.decode())
            self._logins[token.slot.slot_id] = opened
            return
        call = self._function(_LOGIN, _WORD, _WORD, ctypes.c_char_p, _WORD)
        _check(call(_handle(session), _USER, pin, len(pin or b"")))

    def is_logged_out(self, slot_id: int) -> None:
        """The token says so."""
        self._logins.pop(slot_id, None)

    def _list(self) -> Any:
        found = ctypes.POINTER(_FunctionList)()
        # The binding has loaded it already: this is the same one.
        if ctypes.CDLL(self.so).C_GetFunctionList(ctypes.byref(found)) != _OK:
            raise exceptions.PKCS11Error("the module has no list of functions")
        return found.contents

    def _function(self, index: int, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(_WORD, *arguments)(self._list().calls[index])


def _address(functions: Any) -> int:
    return ctypes.addressof(functions)


def _handle(session: Session) -> int:
    """It has one, and the binding's types do not tell."""
    handle: int = session.handle  # type: ignore[attr-defined]
    return handle


def _check(answer: int) -> None:
    if answer in _ANSWERS:
        raise _ANSWERS[answer]
    if answer != _OK:
        raise exceptions.PKCS11Error(f"the module has answered {answer:#x}")
