"""The HTTP status that each error of the CA is answered with."""

from http import HTTPStatus

from pki.errors import Malformed, PkiError, Refused
from pki.issuing.lint import LintFailed
from pki.issuing.root_line import OutOfTurn
from pki.issuing.rotation import ProofFailed
from pki.policy.lifetimes import TtlOutOfRange
from pki.policy.policy import Forbidden, NoProof
from pki.rules.errors import PolicyDenied
from pki.svid.federation import AlteredBundle, OlderBundle
from twisted_mesh.ca.admissions import AgentTaken
from twisted_mesh.ca.agents import AgentBanned, AgentByPlatform
from twisted_mesh.ca.join_tokens import NotByToken
from twisted_mesh.ca.policy.gate import PolicyNotTaken
from twisted_mesh.ca.registered import EntryInFile, EntryOfAgent
from twisted_mesh.ca.revocation.crl import NotPublished
from twisted_mesh.ca.rotation.revoking import NoSuccessor
from twisted_mesh.ca.rotation.root_keys import CannotDetach
from twisted_mesh.ca.rotation.root_rotator import RootWaits
from twisted_mesh.ca.rotation.steps import RootKeyAway
from twisted_mesh.ca.transparency.errors import LogsAway
from twisted_mesh.http.json import BadRequest
from twisted_mesh.keystores.errors import RefusedByRule
from twisted_mesh.limits.quota import QuotaUsedUp
from twisted_mesh.limits.rate_limit import Busy, RateLimited
from twisted_mesh.state.directory import StateError
from twisted_mesh.stores.records import (
    BadCursor,
    Conflict,
    EntryGone,
    KeyBlocked,
    Revoked,
    StoreError,
    TokenDead,
    Unknown,
)

_STATUS: tuple[tuple[type[PkiError], HTTPStatus], ...] = (
    (LintFailed, HTTPStatus.INTERNAL_SERVER_ERROR),
    (ProofFailed, HTTPStatus.INTERNAL_SERVER_ERROR),
    (NoProof, HTTPStatus.UNAUTHORIZED),
    (Revoked, HTTPStatus.UNAUTHORIZED),
    (TokenDead, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (PolicyDenied, HTTPStatus.FORBIDDEN),
    (RefusedByRule, HTTPStatus.FORBIDDEN),
    (EntryGone, HTTPStatus.FORBIDDEN),
    (KeyBlocked, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Unknown, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (CannotDetach, HTTPStatus.CONFLICT),
    (OutOfTurn, HTTPStatus.CONFLICT),
    (RootWaits, HTTPStatus.CONFLICT),
    (PolicyNotTaken, HTTPStatus.CONFLICT),
    (RootKeyAway, HTTPStatus.CONFLICT),
    (NoSuccessor, HTTPStatus.CONFLICT),
    (EntryInFile, HTTPStatus.CONFLICT),
    (EntryOfAgent, HTTPStatus.CONFLICT),
    (AgentBanned, HTTPStatus.CONFLICT),
    (AgentByPlatform, HTTPStatus.CONFLICT),
    (AgentTaken, HTTPStatus.CONFLICT),
    (NotByToken, HTTPStatus.CONFLICT),
    (OlderBundle, HTTPStatus.CONFLICT),
    (AlteredBundle, HTTPStatus.CONFLICT),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (QuotaUsedUp, HTTPStatus.TOO_MANY_REQUESTS),
    (Busy, HTTPStatus.SERVICE_UNAVAILABLE),
    (LogsAway, HTTPStatus.SERVICE_UNAVAILABLE),
    (BadCursor, HTTPStatus.BAD_REQUEST),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotPublished, HTTPStatus.SERVICE_UNAVAILABLE),
    (StateError, HTTPStatus.SERVICE_UNAVAILABLE),
    (TtlOutOfRange, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Refused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Malformed, HTTPStatus.BAD_REQUEST),
)


def status_of(error: PkiError) -> HTTPStatus:
    """The HTTP status that an error is answered with."""
    if isinstance(error, BadRequest):
        return error.status
    return next(
        (status for kind, status in _STATUS if isinstance(error, kind)),
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
