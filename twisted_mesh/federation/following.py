"""How a federated trust domain stands: what is held of it, how old that is, and what went wrong since."""

from datetime import datetime, timedelta

from attrs import field, frozen

from pki.errors import Problem
from pki.svid.bundle import TrustBundle
from pki.svid.federation import Relationship
from pki.svid.refresh import Refresh


@frozen
class Following:
    """One trust domain that is followed, as it stands."""

    relationship: Relationship
    bundle: TrustBundle | None = None
    """The last good one, as its server has it; None while there never was one."""
    fetched_at: datetime | None = None
    """When its server last had it: a failure since then does not change it."""
    next_at: datetime | None = None
    """When it is asked for again; None while it is being asked for."""
    failures: int = 0
    """In a row, since then."""
    failed_since: datetime | None = None
    """The first of these."""
    problems: tuple[Problem, ...] = ()
    """What went wrong the last time; nothing where it went well."""
    passed_over: tuple[Problem, ...] = ()
    """Keys of the last good document that are not believed, and why."""
    refresh: Refresh = field(factory=Refresh)

    @property
    def sequence(self) -> int | None:
        """Of the last good bundle."""
        return None if self.bundle is None else self.bundle.sequence

    @property
    def hint(self) -> int | None:
        """Of the last good bundle: how often its server wants to be asked, in seconds."""
        return None if self.bundle is None else self.bundle.refresh_hint

    def age(self, now: datetime) -> timedelta | None:
        """How long ago its server had what is held."""
        return None if self.fetched_at is None else max(now - self.fetched_at, timedelta())

    def is_too_old(self, now: datetime) -> bool:
        """Whether what is held is not to be believed any more."""
        return self.fetched_at is not None and self.refresh.is_too_old(
            self.hint, self.fetched_at, now
        )
