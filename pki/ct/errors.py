"""What goes wrong between a certificate and a log."""

from pki.codes import Code
from pki.errors import PkiError


class BadSct(PkiError):
    """A receipt (SCT) that proves nothing: damaged, for another certificate, or not signed by that log."""

    code = Code.BAD_SCT


class BadLogList(PkiError):
    """What is said of logs cannot be used, or is not signed by whoever may say it."""

    code = Code.BAD_LOG_LIST


class LogAway(PkiError):
    """A log gave no receipt: it is not reached, busy, or not believed."""

    code = Code.LOG_AWAY


class NotAcceptedHere(PkiError):
    """A log does not take this chain, or not from this caller."""

    code = Code.NOT_ACCEPTED_HERE


class LogReadOnly(PkiError):
    """A log is retired, and takes nothing any more."""

    code = Code.LOG_READ_ONLY


class BadLog(PkiError):
    """A log is shown to break its promise."""


class EntryMissing(BadLog):
    """There is a receipt for an entry, and the tree does not have it."""

    code = Code.CT_ENTRY_MISSING


class LogForked(BadLog):
    """Two trees of one log contradict each other."""

    code = Code.CT_LOG_FORKED


class LogRolledBack(BadLog):
    """A log has fewer entries than it had."""

    code = Code.CT_LOG_ROLLED_BACK
