"""The exit statuses of our programs, and which of them an error of a run means."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pki.errors import PkiError

#: Yes: it is done, or what was asked is so.
DONE = 0
#: No: it was refused, or what was asked is not so.
REFUSED = 1
#: The command line or the input cannot be used.
UNUSABLE = 2
#: The other side was not reached in time.
UNREACHABLE = 3
#: Ctrl-C, as shells count it: 128 and SIGINT's number.
INTERRUPTED = 130


def status_of(error: "PkiError") -> int:
    """What an error means once the CA or a server has been asked."""
    from pki.codes import Code
    from twisted_mesh.api.refusal import CaRefused
    from twisted_mesh.state.directory import StateError

    if isinstance(error, StateError):
        return UNUSABLE
    if isinstance(error, CaRefused):
        return UNREACHABLE if error.status >= 500 else REFUSED
    # Twisted comes with it.
    from twisted_mesh.tls.alerts import RefusedByPeer, Unreachable

    # The other side could not be talked to, as opposed to saying no.
    away = {Code.UNREACHABLE, Code.INTERRUPTED, Code.NOT_TLS, Code.NOT_HTTP, Code.TLS_ERROR}
    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, RefusedByPeer):
        return UNREACHABLE if error.problems[0].code in away else REFUSED
    return REFUSED
