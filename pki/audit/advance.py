"""What a witness of a log looks for: that it was extended, and that nothing else was done to it."""

from collections.abc import Sequence

from pki.audit.log import Checkpoint
from pki.codes import Code
from pki.errors import PkiError, printable
from pki.tlog.merkle import BadProof, verify_consistency
from pki.validity import rfc3339


class LogContradicts(PkiError):
    """A log is not what it was seen to be."""


class RolledBack(LogContradicts):
    """The log is shorter than it was."""

    code = Code.LOG_ROLLED_BACK


class Forked(LogContradicts):
    """The log holds something else than it did."""

    code = Code.LOG_FORKED


class Replaced(LogContradicts):
    """It is another log."""

    code = Code.LOG_REPLACED


class Unvouched(LogContradicts):
    """Nothing that was signed of it is left."""

    code = Code.LOG_UNVOUCHED


_FORKED = (
    "its history was changed, or callers are told different things; compare with other witnesses"
)


def advance(seen: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes]) -> Checkpoint:
    """What a witness that has ``seen`` one checkpoint remembers after a new one.

    ``proof`` is that of consistency between the two; it is not needed where their sizes are equal or
    nothing was seen. Raises :class:`LogContradicts` where the log was not simply extended.
    """
    if seen is None:
        return new
    before = f"{seen.size} entries at {rfc3339(seen.at)}"
    if new.origin != seen.origin:
        raise Replaced(
            f"the log is {printable(new.origin, 80)} with {new.size} entries now, and was "
            f"{printable(seen.origin, 80)} with {before}: the CA was restored or made anew; "
            "if nobody did that, somebody has put another in its place"
        )
    if new.size < seen.size:
        raise RolledBack(
            f"the log has {new.size} entries and had {before}: what came between is gone, revocations "
            "with it; find out who put an older state back"
        )
    if new.size == seen.size:
        if new.root != seen.root:
            raise Forked(
                f"the log of {new.size} entries is not the one that had {before}: {_FORKED}"
            )
    elif seen.size:
        try:
            verify_consistency(seen.size, new.size, seen.root, new.root, proof)
        except BadProof as error:
            raise Forked(
                f"the log of {new.size} entries is not shown to contain the one that had {before} "
                f"({error}): {_FORKED}"
            ) from None
    return new
