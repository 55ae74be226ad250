"""What a CA is asked for news of whom to believe, and what whoever asks says of itself by that: an acknowledgement."""

import secrets
from urllib.parse import quote, urlencode

from attrs import frozen

#: Where it is asked.
PATH = "/api/v1/trust"


def new_instance() -> str:
    """A name for this process at the CA: of one service there may be many."""
    return secrets.token_hex(8)


@frozen
class Belief:
    """What an endpoint believes and shows now; whoever plans for all asks whether that is the latest everywhere."""

    instance: str
    """By which the CA tells it from others that prove the same."""
    holds: int
    """The ``spiffe_sequence`` of the bundle of its own trust domain that it believes."""
    top: str = ""
    """The fingerprint of the root that the chain leads to which it serves; empty while it serves none."""


@frozen
class TrustQuestion:
    """From where on news are wanted, and for how many seconds the CA may wait until there are any."""

    after: int = 0
    """The position in the feed of revocations."""
    store: str = ""
    """Whose feed that is."""
    edition: str = ""
    """Of all else that was told last."""
    log_size: int | None = None
    """Of the audit log that was seen; None for who does not want to see it."""
    wait: int = 0
    belief: Belief | None = None
    """Once there is an identity."""

    @property
    def path(self) -> str:
        """With its parameters, as it stands in a request."""
        asked: dict[str, object] = {"after": self.after}
        if self.log_size is not None:
            asked["log"] = self.log_size
        if self.store:
            asked["store"] = self.store
        if self.edition:
            asked["edition"] = self.edition
        if self.wait:
            asked["wait"] = f"{self.wait}s"
        if self.belief is not None:
            asked |= {"instance": self.belief.instance, "holds": self.belief.holds}
            if self.belief.top:
                asked["top"] = self.belief.top
        return f"{PATH}?{urlencode(asked, quote_via=quote, safe='')}"
