"""How long what is signed lives."""

from datetime import timedelta

from attrs import frozen

from pki.codes import Code
from pki.errors import PkiError
from pki.validity import format_duration


@frozen
class Lifetimes:
    """How long certificates live: what is given without asking, and the most that is given."""

    default: timedelta
    maximum: timedelta

    def grant(self, asked: timedelta | None) -> timedelta:
        """Raises :class:`TtlOutOfRange`."""
        if asked is None:
            return self.default
        if not timedelta(seconds=1) <= asked <= self.maximum:
            raise TtlOutOfRange(
                f"a lifetime of {format_duration(asked)} is out of range: ask for 1s to {format_duration(self.maximum)}"
            )
        return asked


class TtlOutOfRange(PkiError):
    """The lifetime that was asked for is not between 1 s and the CA's maximum."""

    code = Code.TTL_OUT_OF_RANGE
