"""The API's requests and answers: what the CA reads and writes, and its clients write and read.

Times are RFC 3339 text, serials lower-case hex, durations like ``30m``. What a request leaves out has its
default. In an answer, ``null`` says that there is none; a member whose default is UNSET is left out, by some
answers of its route or by CAs before it was thought of. Readers pass over members that they do not know.
"""

import base64
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pki.policy.entry import EntryDocument, EntryMembers
from pki.svid.revocation_set import Reason
from pki.svid.spki_pin import PinSet
from pki.validity import rfc3339
from twisted_mesh.api.attestation_messages import AttestationMember

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

T = TypeVar("T")

StandingWord = Literal["ok", "warn", "fail"]

#: The most rows of one answer, and certificates of one request.
LARGEST_PAGE = 1000


# Signing


class SignRequest(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/sign``."""

    csr: str
    """PEM."""
    requested_id: str
    ttl: str | None = None
    token: str | None = None
    """A join token, which is proof."""
    attestation: AttestationMember | UnsetType = UNSET
    """Not beside a token."""


class SignAnswer(Struct, frozen=True):
    """A certificate that was issued."""

    certificate: str
    """PEM."""
    chain: list[str]
    """Its intermediates, each PEM."""
    expires_at: str | UnsetType = UNSET
    serial: str | UnsetType = UNSET
    spiffe_id: str | UnsetType = UNSET


# Certificates on record


class CertificateRow(Struct, frozen=True):
    """One certificate in the CA's record."""

    serial: str
    subject: str
    spiffe_id: str
    issued_at: str
    expires_at: str
    status: str
    revoked_at: str | None = None
    reason: str | None = None
    issuer: str | None = None
    """:func:`pki.keys.key_id` of the CA that signed it."""
    key: str | None = None
    """:func:`pki.keys.key_id` of its own key."""
    requester: str | None = None
    entry: str | None = None
    """The registration entry that bought it."""
    connections: int | UnsetType = UNSET
    """How many open connections are known to rest on it; unset of a CA that does not know of any."""


class CertificateDetails(CertificateRow, frozen=True):
    """The same with the certificate itself."""

    certificate: str | None = None
    """PEM; None while it is pending, or once it is pruned."""


class CertificatePage(Struct, frozen=True):
    """Some rows, newest first, and the cursor of the next page."""

    certificates: list[CertificateRow]
    next: str | None


# Revocation


def unspecified() -> str:
    """The reason of whoever gives none."""
    return str(Reason.UNSPECIFIED)


class RevokeRequest(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/revoke``: of one, or of many at once."""

    serial: str | None = None
    serials: list[str] | None = None
    """At most :data:`LARGEST_PAGE`."""
    reason: str = msgspec.field(default_factory=unspecified)
    """A client says it in any case: what a factory makes is not left out."""


class Revoked(Struct, frozen=True):
    """What the CA answers to a revocation, the same each time."""

    serial: str
    revoked_at: str
    reason: str


class RevokedMany(Struct, frozen=True):
    """What the CA answers to the revocation of many."""

    revoked: list[Revoked]
    unknown: list[str]
    """Serials that are not on record."""


# Trust


class RevocationRow(Struct, frozen=True):
    """A revocation, as whoever checks certificates needs it."""

    issuer: str
    serial: str
    revoked_at: str
    reason: str
    expires_at: str
    """From then on it need not be remembered."""


class LogNews(Struct, frozen=True):
    """The audit log's newest checkpoint (a signed note), and the way there from the size asked for."""

    verifier: str
    checkpoint: str
    proof: list[str]
    """Hashes in hex."""


class _Trust(Struct, Generic[T], frozen=True, kw_only=True):
    store: str
    generation: int
    """The position to ask from the next time."""
    more: bool | None = None
    waited: float = 0.0
    """Seconds."""
    bundles: dict[str, Any]
    """SPIFFE bundles by trust domain."""
    revocations: T
    log: LogNews | UnsetType | None = UNSET
    """Unset where it was not asked for; None where there is nothing new."""
    edition: str | UnsetType = UNSET
    """Of all but what was revoked of leaves: another whenever that says something else. To ask with the next time."""
    issuers: dict[str, list[str]] | UnsetType = UNSET
    """By the key id of each issuing CA whose leaves may be in use: what is to be served above them, each PEM."""
    revoked_authorities: list[RevocationRow] | UnsetType = UNSET
    """Of CA certificates, roots too, all of them each time."""
    federated_revocations: list[RevocationRow] | UnsetType = UNSET
    """All that the CAs of federated trust domains have revoked. Unset where the caller has heard of all already."""
    withdrawn_pins: list[str] | UnsetType = UNSET
    """``sha256/BASE64`` of the SPKIs of CA keys that nobody is to rely on any more."""
    withdrawn_logs: list[str] | UnsetType = UNSET
    """Ids, in base64, of logs whose receipts nobody is to count any more. There is no word for adding one."""


class TrustAnswer(_Trust[list[RevocationRow]], frozen=True):
    """``GET /api/v1/trust``: what is to be believed, and what was revoked since the position asked from."""


class WrittenTrust(_Trust[msgspec.Raw], frozen=True):
    """The same as the CA writes it: its revocations are JSON already, once for all who get the same."""


# CRLs


class IssuerCrl(Struct, frozen=True):
    """The CRL of one CA."""

    issuer: str
    """Its certificate, PEM."""
    crl: bytes
    """DER, in base64."""


class PublishedCrls(Struct, frozen=True):
    """``GET /api/v1/crls``: all of them at one moment, the root's first."""

    crls: list[IssuerCrl]


# Connections


class HeldPins(Struct, frozen=True):
    """By which CA keys an endpoint has its peers vouched for."""

    rules: list[str]
    """Each ``PATTERN=sha256/BASE64,sha256/BASE64``, as options have it."""
    mode: Literal["report", "enforce"]
    until: str | UnsetType = UNSET
    """When they begin to be reported only."""


def held_pins(pins: PinSet) -> HeldPins:
    """What is told of an endpoint's pins."""
    until = UNSET if pins.until is None else rfc3339(pins.until)
    return HeldPins([str(rule) for rule in pins.rules], pins.mode.value, until)


class RequiredScts(Struct, frozen=True):
    """How many receipts of logs (SCTs, RFC 6962) an endpoint demands of a certificate, and whose it counts."""

    required: int
    """Each of another log."""
    logs: list[str]
    """The ids of those that it holds keys for, in base64, in order."""


def required_scts(demand: "SctDemand") -> RequiredScts:
    """What is told of the receipts that an endpoint demands."""
    ids = [base64.b64encode(log.log_id).decode() for log in demand.logs.logs]
    return RequiredScts(demand.required, sorted(ids))


class ConnectionsReport(Struct, frozen=True):
    """``POST /api/v1/connections``: by issuer and serial, how many connections rest on a certificate."""

    instance: str
    connections: dict[str, dict[str, int]]
    goes_on: bool = False
    """Whether it adds to what the report before it said."""
    pins: HeldPins | UnsetType = UNSET
    """Unset by an endpoint that has none; of one that goes on nothing is said of them."""
    require_sct: RequiredScts | UnsetType = UNSET
    """Likewise: unset by an endpoint that demands none."""


class ReportTaken(Struct, frozen=True):
    """When the CA wants the next report."""

    again_after: str


class Reporter(Struct, frozen=True):
    """One endpoint, and how much it has told."""

    who: str
    credentials: int
    connections: int


class Pinning(Struct, frozen=True):
    """One endpoint, and the pins that it says it has."""

    who: str
    pins: HeldPins


class RequiringScts(Struct, frozen=True):
    """One endpoint, and the receipts that it says it demands."""

    who: str
    require_sct: RequiredScts


class KnownConnections(Struct, frozen=True):
    """Who has told the CA of open connections."""

    endpoints: int
    within: str
    """How long a report counts."""
    own: int
    """The CA's own."""
    reports: list[Reporter] | UnsetType = UNSET
    pins: list[Pinning] | UnsetType = UNSET
    require_sct: list[RequiringScts] | UnsetType = UNSET


# Registration entries


class NewRegistration(EntryMembers, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /api/v1/entries``: a registration entry as it is asked for."""

    reason: str = ""


class Registration(EntryDocument, frozen=True, kw_only=True):
    """A registration entry as it is told."""

    source: str
    """``store``, ``file`` or ``default``."""
    honoured: bool
    created_at: str | None


class Registrations(Struct, frozen=True):
    """All that there are."""

    entries: list[Registration]
    max_ttl: str | None = None
    """The most that the CA gives, whatever an entry says."""


class Deleted(Struct, frozen=True):
    """An entry that was there."""

    id: str
    deleted_at: str


# Join tokens


class NewToken(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/tokens``: for ``entry``, or with an entry of its own."""

    entry: str | None = None
    spiffe_id: str | None = None
    dns_names: list[str] = []
    ip_addresses: list[str] = []
    max_ttl: str | None = None
    """The most that its certificate may live."""
    ttl: str | None = None
    """How long it may be used itself."""
    key: str | None = None
    """:func:`pki.keys.key_id` of the only key that it certifies."""
    reason: str = ""
    federates_with: list[str] = []
    """Other trust domains, whose bundles whoever it lets in is given."""


class MadeToken(Struct, frozen=True):
    """A join token, this once with its secret, and what else a new machine needs."""

    token: str
    id: str
    entry: str
    spiffe_id: str
    ca_url: str
    fingerprint: str
    expires_at: str


class TokenRow(Struct, frozen=True):
    """A join token as it is told ever after."""

    id: str
    entry: str
    spiffe_id: str | None
    """None where the entry is gone."""
    key: str | None
    status: str
    """``live``, ``spent``, ``expired`` or ``revoked``."""
    created_at: str
    expires_at: str
    revoked_at: str | None
    spent_at: str | None
    serial: str | None
    """Of the certificate that it bought."""


class TokenRows(Struct, frozen=True):
    """All that are remembered, the newest first."""

    tokens: list[TokenRow]


class RevokedToken(Struct, frozen=True):
    """What the CA answers to the revocation of a token, the same each time."""

    id: str
    revoked_at: str


# Health


class HealthCheck(Struct, frozen=True):
    """One thing that was looked at, and what to do where it is not well."""

    name: str
    status: StandingWord
    detail: str
    remedy: str = ""


class Health(Struct, frozen=True):
    """What the CA says of itself: as well as the worst of its checks."""

    status: StandingWord
    checks: list[HealthCheck]


class Alive(Struct, frozen=True):
    """``GET /livez``."""

    status: Literal["alive"] = "alive"


class Ready(Struct, frozen=True):
    """``GET /readyz``, where the CA is."""

    status: Literal["ready"] = "ready"
    degraded: list[HealthCheck] | UnsetType = UNSET
    """The checks that came out with a warning; left out where there is none."""
