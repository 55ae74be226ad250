"""What a policy has decided, and of what."""

from attrs import frozen

from pki.rules.errors import PolicyDenied
from pki.rules.rule import Effect


@frozen
class Decision:
    """The answer to one question."""

    allowed: bool
    rule: str
    """The rule that decided; empty where none allows."""
    reason: str
    """That rule's reason."""
    digest: str
    """The policy's: ``sha256:…``."""

    def require(self) -> "Decision":
        """Itself if it allows; raises :class:`~pki.rules.errors.PolicyDenied` if not."""
        if not self.allowed:
            raise PolicyDenied(self.rule, self.reason)
        return self


@frozen
class Verdict:
    """What one rule says of one question."""

    rule: str
    effect: Effect
    holds: bool | None
    """None for an error."""
    error: str
    values: tuple[tuple[str, object], ...]
    """Each path that it reads, and what stood there."""
    decides: bool


@frozen
class Explanation:
    """Every rule that was asked, and what came of it."""

    verdicts: tuple[Verdict, ...]
    decision: Decision | None
    """None for an error."""
    error: str = ""
