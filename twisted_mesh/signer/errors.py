"""Why a signer itself cannot go on."""

from pki.codes import Code
from pki.errors import PkiError


class SignerStateError(PkiError):
    """What the signer remembers cannot be read, written or believed: it signs nothing."""

    code = Code.SIGNER_STATE


class UnknownKey(PkiError):
    """There is no key of that name here."""

    code = Code.NOT_FOUND


class ForeignCaller(PkiError):
    """Who calls is none of those that may."""

    code = Code.NOT_AUTHORIZED
