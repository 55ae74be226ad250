"""Requests and answers about federated trust domains; as :mod:`twisted_mesh.api.messages` has them."""

from msgspec import Struct


class NewFederation(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/federation``: another trust domain, and where its bundle is."""

    trust_domain: str
    url: str
    profile: str
    """``https_spiffe`` or ``https_web``."""
    endpoint_id: str | None = None
    """The SPIFFE ID of the server, with ``https_spiffe``."""
    bundle: str | None = None
    """Its bundle, to begin with: SPIFFE's JSON or PEM."""
    crl_url: str | None = None
    """Where its CA publishes its CRLs, with the certificates of its issuing CAs (PEM)."""
    reason: str = ""


class RefreshFederation(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/federation/TD``: ask for its bundle now."""

    accept_older: bool = False
    """Have it believed though its sequence goes back."""
    reason: str = ""


class FederationRow(Struct, frozen=True):
    """A trust domain that is federated with, as it stands."""

    trust_domain: str
    url: str
    profile: str
    endpoint_id: str | None
    crl_url: str | None
    created_at: str
    believed: bool
    """Whether its bundle is handed out."""
    sequence: int | None
    """Of the last good bundle; None while there is none."""
    fetched_at: str | None
    """When its endpoint last had that; None for one that came with a file."""
    age: str | None
    """How long ago that was, by the CA's clock, for people."""
    next_at: str | None
    """When it is asked for again; None while it is being asked for."""
    refresh_hint: int | None
    """Seconds."""
    failures: int
    """In a row."""
    failed_since: str | None
    problems: list[str]
    """What went wrong the last time, and why nobody there is believed."""
    passed_over: list[str]
    """Keys of its bundle that are not believed, and why."""
    roots: list[str]
    """Their fingerprints."""
    jwt_keys: list[str]
    """Their names."""
    entries: list[str]
    """The registration entries that federate with it."""


class FederationRows(Struct, frozen=True):
    """All that there are, by name."""

    federations: list[FederationRow]
    unreadable: dict[str, str]
    """Those on record that cannot be used, and why."""


class FederationEnded(Struct, frozen=True):
    """A trust domain that was federated with."""

    trust_domain: str
    ended_at: str
    entries: list[str]
    """The registration entries that still name it."""
