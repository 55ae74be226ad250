"""Requests and answers about the roots and their rotation; as :mod:`twisted_mesh.api.messages` has them."""

import msgspec
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
    root: str = ""
    """Of ``prepare``: the certificate (PEM) of a root that was made elsewhere, in place of a new one."""


class RootStepDone(Struct, frozen=True):
    """What has become of it."""

    done: bool
    """False of a dry run, and of a step that waits half-way: ask for it again."""
    waits: list[RootWait]
    status: RootStatus


class DistrustRequest(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/ca/root/distrust``."""

    fingerprint: str
    """``sha256:HEX``, of the root."""
    reason: str = msgspec.field(default_factory=lambda: "cACompromise")
    """Of RFC 5280. A client says it in any case."""
    dry_run: bool = False


class RemnantRow(Struct, frozen=True):
    """A certificate of a CA that has to do with a distrusted root."""

    where: str
    subject: str
    serial: str
    key_id: str
    remains: str
    """``dead`` (it leads to that root), ``survives`` (it leads to another, over a key that this one certified too), or
    ``revives``: it would bring the stolen key back to life."""


class RootDistrusted(Struct, frozen=True):
    """What the CA answers when a root is distrusted, or would be."""

    fingerprint: str
    subject: str
    steps: list[str]
    """That were needed, or would be."""
    alone: list[str]
    """Key ids of issuing CAs that no other root had certified."""
    done: bool
    revoked_at: str | None = None
    reason: str | None = None
    root: str | None = None
    """The fingerprint of the root that chains lead to now."""
    remnants: list[RemnantRow] = []
    leaves: int = 0
    """Certificates on record over its key."""
    proven: bool | None = None
    """Whether nothing is left that would bring its key back to life; null of a dry run."""
    waits: str | None = None
    """What is still to be done."""
