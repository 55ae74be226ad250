"""Requests and answers about the roots and their rotation; as :mod:`twisted_mesh.api.messages` has them."""

from msgspec import Struct


class RootRow(Struct, frozen=True):
    """A root that is believed."""

    fingerprint: str
    """``sha256:HEX``: what whoever joins compares with."""
    pin: str
    """``sha256/BASE64``, of its key."""
    subject: str
    not_before: str
    not_after: str
    is_served: bool
    """Whether chains lead to it."""
    key: str
    """Where its key is, or is to be brought back to."""
    has_key: bool
    """Whether it is here."""


class FormerRootRow(Struct, frozen=True):
    """A root that was believed once."""

    fingerprint: str
    pin: str
    subject: str
    at: str
    how: str
    """``retired``, ``reverted`` or ``distrusted``."""


class RootWait(Struct, frozen=True):
    """What stands against a step, or is only told."""

    code: str
    detail: str
    remedy: str
    who: list[str]
    """Those that it is about; the first hundred."""
    blocking: bool
    """Whether the step waits for it, unless it is forced."""


class RootStatus(Struct, frozen=True):
    """``GET /api/v1/ca/root``."""

    phase: str
    """``settled``, ``prepared``, ``activated`` or ``switched``."""
    since: str | None
    roots: list[RootRow]
    """The one that chains lead to first."""
    next_keys: list[str]
    """Pins of the keys to come: of the next issuing CA and of the next root."""
    sequence: int
    """Of the bundle."""
    next_step: str
    """``prepare``, ``activate`` or ``retire``."""
    next_at: str | None
    """When it is due, as far as the clock decides it."""
    command: str
    """What does it."""
    waits: list[RootWait]
    """What it waits for."""
    former: list[FormerRootRow]
    """Those that are believed no more, the latest first."""


class RootStepRequest(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/ca/root/prepare``, ``activate``, ``retire`` or ``revert``."""

    dry_run: bool = False
    """Whether to say only what stands against it."""
    force: bool = False
    """Whether to do it all the same."""
    reason: str = ""


class RootStepDone(Struct, frozen=True):
    """What has become of it."""

    done: bool
    """False of a dry run, and of a step that waits half-way: ask for it again."""
    waits: list[RootWait]
    status: RootStatus
