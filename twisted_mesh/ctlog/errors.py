"""Why a log takes nothing, or not this."""

from pki.codes import Code
from pki.errors import PkiError


class CtLogStateError(PkiError):
    """What the log remembers cannot be read, written or believed: nothing is added to it."""

    code = Code.STATE


class ContradictsItself(CtLogStateError):
    """What is here is not what was signed: whatever is signed on top of it would be a second log."""

    code = Code.CT_LOG_ROLLED_BACK


class ForeignSubmitter(PkiError):
    """Who submits is none of those that may."""

    code = Code.NOT_AUTHORIZED
