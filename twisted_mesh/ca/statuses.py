"""The HTTP status that each error of the CA is answered with."""

from http import HTTPStatus

from pki.errors import Malformed, PkiError, Refused
from pki.lint import LintFailed
from pki.policy import Forbidden, NoProof, TtlOutOfRange
from pki.succession import ProofFailed
from twisted_mesh.ca.handover import CannotDetach
from twisted_mesh.ca.join_tokens import NotByToken
from twisted_mesh.ca.registrar import EntryInFile
from twisted_mesh.ca.revocation_list import NotPublished
from twisted_mesh.documents import BadRequest
from twisted_mesh.limits import Busy, RateLimited
from twisted_mesh.state import StateError
from twisted_mesh.stores.records import (
    BadCursor,
    Conflict,
    EntryGone,
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
    (EntryGone, HTTPStatus.FORBIDDEN),
    (Unknown, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (CannotDetach, HTTPStatus.CONFLICT),
    (EntryInFile, HTTPStatus.CONFLICT),
    (NotByToken, HTTPStatus.CONFLICT),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (Busy, HTTPStatus.SERVICE_UNAVAILABLE),
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
