"""What an :class:`ISource` says: an identity, and what is believed from now on."""

from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import X509Svid


@frozen
class Identity:
    """A certificate with its key, whom it may believe, and when it was issued by our own clock."""

    svid: X509Svid
    bundles: BundleSet
    issued_at: datetime


@frozen
class News:
    """What a source has to say of revocations."""

    revocations: Sequence[Revocation] = ()
    more: bool = False
    """Whether there may be others already: then what is known is not up to date yet."""
    waited: float = 0.0
    """For how many seconds after the question this is still the latest, at least."""
    bundles: BundleSet | None = None
    """What is believed now; None where nothing is said of it."""
