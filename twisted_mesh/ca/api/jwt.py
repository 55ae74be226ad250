"""The routes of JWT-SVIDs: of the keys that sign them, and of tokens for an agent's workloads."""

from functools import partial
from http import HTTPStatus

from pki.jwt_svid.algorithms import alg_of
from pki.jwt_svid.rotation import KeyTerm
from pki.validity import format_duration, parse_duration, rfc3339
from twisted_mesh.api.agent_messages import AgentJwt, AgentJwtRequest
from twisted_mesh.api.jwt_messages import JwtKeyRow, JwtKeyRows, RotateJwtKey
from twisted_mesh.ca.api.agents import stated_selectors
from twisted_mesh.ca.api.entries import reason_of
from twisted_mesh.ca.api.request import Call, key_digest
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.jwt_keys import JwtKeys
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import Conflict


async def list_keys(ca: CaParts, call: Call) -> Answer:
    """All that are published: :class:`JwtKeyRows`."""
    return json_answer(_rows(ca, _issuer(ca)))


async def rotate(ca: CaParts, call: Call) -> Answer:
    """Have the next key sign. Raises what :meth:`JwtKeys.rotate` raises."""
    asked, issuer = call.read(RotateJwtKey), _issuer(ca)
    await issuer.keys.rotate(call.principal, at_once=asked.at_once, reason=reason_of(asked.reason))
    return json_answer(_rows(ca, issuer))


async def retire(ca: CaParts, call: Call) -> Answer:
    """Take a key out of the bundle. Raises what :meth:`JwtKeys.retire` raises."""
    issuer, kid = _issuer(ca), key_digest(call.rest, "kid") or ""
    await issuer.keys.retire(call.principal, kid, reason_of(call.query.get("reason", "")))
    return json_answer(_rows(ca, issuer))


async def issue_for_agent(ca: CaParts, call: Call) -> Answer:
    """A token for a workload of the agent's machine. Raises :class:`Forbidden`, and what issuing raises."""
    asked, issuer = call.read(AgentJwtRequest), _issuer(ca)
    stated = stated_selectors(asked.selectors)
    buying = partial(ca.agents.bought_by, call.principal, asked.entry, stated)
    made = await issuer.issue(
        call.principal,
        buying(),
        stated,
        asked.audience,
        parse_duration(asked.ttl) if asked.ttl is not None else None,
        call.source,
        look_again=buying,
    )
    # Nobody can revoke it: an agent that was banned meanwhile, or whose entry went, does not get it.
    buying()
    answer = AgentJwt(made.token, str(made.spiffe_id), rfc3339(made.expires_at))
    return json_answer(answer, HTTPStatus.CREATED)


def _issuer(ca: CaParts) -> JwtIssuer:
    if ca.jwt is None:
        raise Conflict("this CA signs no JWT-SVIDs: it keeps no keys in files")
    return ca.jwt


def _rows(ca: CaParts, issuer: JwtIssuer) -> JwtKeyRows:
    keys, lifetimes = issuer.keys, issuer.lifetimes
    return JwtKeyRows(
        [_row(keys, key) for key in keys.line.keys],
        ca.bundle().sequence,
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
