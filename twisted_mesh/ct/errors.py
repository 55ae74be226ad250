"""What goes wrong while a log is asked, besides what :mod:`pki.ct.errors` has."""

from pki.codes import Code
from pki.ct.errors import LogAway
from pki.errors import PkiError


class LogBusy(LogAway):
    """The log says itself that it cannot now, and perhaps when to come back."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds; None where it has not said."""


class LogUnusable(PkiError):
    """What the log has answered is not what a log answers."""

    code = Code.NOT_SERVED


class NotInLog(LogUnusable):
    """The log does not have what was asked for: a tile, an issuer (HTTP 404)."""


class TilesContradict(LogUnusable):
    """The tiles that a log serves are not those of the tree whose head it has signed."""

    code = Code.DAMAGED_TREE
