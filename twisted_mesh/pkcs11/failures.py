"""What a module's answers mean: whether a fresh session helps, a fresh start of the module, or only a person."""

import re
from enum import Enum

from pkcs11 import exceptions

from pki.errors import printable
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused


class Cure(Enum):
    """What may help."""

    SESSION = "a session that is opened anew"
    MODULE = "the module, initialised anew: it has lost its token, or the daemon behind it"
    PERSON = "somebody who does something"


class TokenRefused(KeyStoreRefused):
    """The token lets nobody in: that is a problem of the store, and not of one key."""


class TokenAbsent(Exception):
    """No slot has the token. It may be back when the module is initialised anew."""


#: The binding names the file, and then has the system name it.
_PLACE = re.compile(r"^OS exception while loading [^:]*: ")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+")
_SESSION: tuple[type[exceptions.PKCS11Error], ...] = (
    exceptions.SessionHandleInvalid,
    exceptions.SessionClosed,
    exceptions.UserNotLoggedIn,
    exceptions.KeyHandleInvalid,
    exceptions.ObjectHandleInvalid,
    exceptions.OperationActive,
    exceptions.OperationNotInitialized,
    exceptions.FunctionCancelled,
)
#: Why it is away, in words.
_AWAY: dict[type[Exception], str] = {
    exceptions.DeviceRemoved: "the token was taken out: put it back",
    exceptions.TokenNotPresent: "the token is not in its slot: put it back",
    exceptions.TokenNotRecognised: "there is something in the slot that the module does not know: look at its driver",
    exceptions.SlotIDInvalid: "the token's slot is gone: put the reader or the device back",
    exceptions.DeviceError: "the token, or the daemon that reaches it, does not work: see whether that runs",
    exceptions.GeneralError: "the module says no more than that it failed: look at its own log",
    exceptions.FunctionFailed: "the module says no more than that it failed: look at its own log",
    exceptions.HostMemory: "the module has no memory left: see what else runs here",
    exceptions.SessionCount: "the token has no session left: close other programs that use it, or set sessions=1",
    exceptions.SessionHandleInvalid: "the token closes each session as soon as it is open: look at the module's log",
    exceptions.UserNotLoggedIn: "the token forgets that we have logged in: look whether other programs log out there",
}
#: Why it says no, in words.
_REFUSED: dict[type[Exception], str] = {
    exceptions.DeviceMemory: "the token is full: delete keys that nobody needs (pkcs11-tool --delete-object), or use "
    "another token",
    exceptions.TokenWriteProtected: "the token is write-protected: keys can be made on another only",
    exceptions.SessionReadOnly: "the token is write-protected: keys can be made on another only",
    exceptions.MechanismInvalid: "the token cannot do that with such keys: choose another algorithm, those that it "
    "has are listed by pkcs11-tool --list-mechanisms",
    exceptions.DomainParamsInvalid: "the token does not have that curve: choose another algorithm",
    exceptions.KeySizeRange: "the token has no keys of that size: choose another algorithm",
    exceptions.TemplateInconsistent: "the token makes no keys as the mesh wants them, which sign and cannot be taken "
    "out: look at its policy",
    exceptions.AttributeValueInvalid: "the token makes no keys as the mesh wants them, which sign and cannot be taken "
    "out: look at its policy, and whether it has that algorithm",
    exceptions.FunctionNotSupported: "the module has no such function: it cannot keep a CA's keys",
    exceptions.FunctionRejected: "the token's own policy, or the person at it, has refused: look at its settings",
}


def cure_of(error: Exception) -> Cure:
    """What may help against it."""
    if isinstance(error, TokenAbsent):
        return Cure.MODULE
    if isinstance(error, _SESSION):
        return Cure.SESSION
    # The binding has no class for what it does not expect, as that the module is not initialised (any more).
    if type(error) in _AWAY or type(error) is exceptions.PKCS11Error:
        return Cure.MODULE
    return Cure.PERSON


def away(error: Exception) -> KeyStoreAway:
    """For whoever waits, of what no cure has helped against."""
    if isinstance(error, TokenAbsent):
        return KeyStoreAway(str(error))
    words = _AWAY.get(
        type(error), "the module failed: see whether the token and what reaches it work"
    )
    return KeyStoreAway(f"the key's token does not answer ({_name(error)}): {words}")


def refused(error: Exception) -> KeyStoreRefused:
    """The same of a no."""
    words = _REFUSED.get(type(error), "that is a no: look at the token's settings and its log")
    return KeyStoreRefused(f"the key's token refuses ({_name(error)}): {words}")


def _name(error: Exception) -> str:
    """As the standard has it: ``CKR_DEVICE_MEMORY``; or what the binding has to say."""
    if type(error) is exceptions.PKCS11Error:
        return _PLACE.sub("", printable(str(error), 300))
    return "_".join(("CKR", *_WORD.findall(type(error).__name__))).upper()
