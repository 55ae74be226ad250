"""The routes of the keys that sign JWT-SVIDs."""

from pki.jwt_svid.algorithms import alg_of
from pki.jwt_svid.rotation import KeyTerm
from pki.validity import format_duration, rfc3339
from twisted_mesh.api.messages import JwtKeyRow, JwtKeyRows, RotateJwtKey
from twisted_mesh.ca.api.entries import reason_of
from twisted_mesh.ca.api.request import Call, key_digest
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import Conflict


async def list_keys(ca: CaParts, call: Call) -> Answer:
    """All that are published: :class:`JwtKeyRows`."""
    return json_answer(_rows(_issuer(ca)))


async def rotate(ca: CaParts, call: Call) -> Answer:
    """Have the next key sign. Raises what :meth:`JwtKeys.rotate` raises."""
    asked, issuer = call.read(RotateJwtKey), _issuer(ca)
    await issuer.keys.rotate(call.principal, at_once=asked.at_once, reason=reason_of(asked.reason))
    return json_answer(_rows(issuer))


async def retire(ca: CaParts, call: Call) -> Answer:
    """Take a key out of the bundle. Raises what :meth:`JwtKeys.retire` raises."""
    issuer, kid = _issuer(ca), key_digest(call.rest, "kid") or ""
    await issuer.keys.retire(call.principal, kid, reason_of(call.query.get("reason", "")))
    return json_answer(_rows(issuer))


def _issuer(ca: CaParts) -> JwtIssuer:
    if ca.jwt is None:
        raise Conflict("this CA signs no JWT-SVIDs: it keeps no keys in files")
    return ca.jwt


def _rows(issuer: JwtIssuer) -> JwtKeyRows:
    keys, lifetimes = issuer.keys, issuer.lifetimes
    return JwtKeyRows(
        [_row(keys, key) for key in keys.line.keys],
        keys.line.sequence,
        format_duration(lifetimes.default),
        format_duration(lifetimes.maximum),
        issuer.issuer,
    )


def _row(keys: JwtKeys, key: KeyTerm) -> JwtKeyRow:
    return JwtKeyRow(
        key.kid,
        alg_of(key.algorithm) or str(key.algorithm),
        str(key.state),
        rfc3339(key.published_at),
        optional_time(key.active_at),
        optional_time(key.retired_at),
        optional_time(keys.planned(key)),
    )
