"""The routes of registration: entries and join tokens, made, listed and taken back by administrators."""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from pki.errors import Malformed, printable
from pki.policy.entry import RegistrationEntry, read_entry
from pki.policy.join_token import LIFETIME
from pki.policy.selector import Selector
from pki.serial import serial_hex
from pki.validity import format_duration, parse_duration, rfc3339
from twisted_mesh.api.admin_client import NewRegistration, NewToken
from twisted_mesh.ca.api.request import Call, key_digest
from twisted_mesh.ca.api.response import Answer, told
from twisted_mesh.ca.entries import Registered, new_entry_id
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.http.json import parse_json
from twisted_mesh.stores.records import IssuedToken

_LONGEST_REASON = 200


async def list_entries(ca: CaParts, call: Call) -> Answer:
    entries = [_entry(known) for known in ca.entries.all()]
    return told({"entries": entries, "max_ttl": format_duration(ca.lifetimes.maximum)})


async def show_entry(ca: CaParts, call: Call) -> Answer:
    return told(_entry(ca.entries.find(call.rest)))


async def create_entry(ca: CaParts, call: Call) -> Answer:
    asked = parse_json(call.body, NewRegistration)
    reason = _reason(asked.reason)
    entry = read_entry(
        new_entry_id(),
        ca.trust_domain,
        selectors=asked.selectors,
        spiffe_id=asked.spiffe_id,
        dns_names=asked.dns_names,
        ip_addresses=asked.ip_addresses,
        ttl=asked.ttl,
        max_ttl=asked.max_ttl,
        keys=asked.keys,
        comment=asked.comment,
    )
    made = await ca.entries.create(call.principal, entry, reason)
    return told(_entry(made), HTTPStatus.CREATED)


async def delete_entry(ca: CaParts, call: Call) -> Answer:
    reason = _reason(call.query.get("reason", ""))
    at = await ca.entries.delete(call.principal, call.rest, reason)
    return told({"id": call.rest, "deleted_at": rfc3339(at)})


async def list_tokens(ca: CaParts, call: Call) -> Answer:
    bought = {known.entry.id: str(known.entry.spiffe_id) for known in ca.entries.all()}
    tokens = await ca.tokens.all()
    return told({"tokens": [_token(t, bought.get(t.entry), ca.now()) for t in tokens]})


async def create_token(ca: CaParts, call: Call) -> Answer:
    asked = parse_json(call.body, NewToken)
    life: timedelta = parse_duration(asked.ttl) if asked.ttl is not None else LIFETIME
    made = await ca.tokens.create(
        call.principal,
        _entry_for(ca, asked),
        life,
        key=key_digest(asked.key, "key"),
        reason=_reason(asked.reason),
    )
    facts = {
        "token": made.token.text,
        "id": made.token.id,
        "entry": made.entry.id,
        "spiffe_id": str(made.entry.spiffe_id),
        "ca_url": str(ca.url),
        "fingerprint": ca.authorities.fingerprint,
        "expires_at": rfc3339(made.expires_at),
    }
    return told(facts, HTTPStatus.CREATED)


async def revoke_token(ca: CaParts, call: Call) -> Answer:
    reason = _reason(call.query.get("reason", ""))
    revoked = await ca.tokens.revoke(call.principal, call.rest, reason)
    return told({"id": revoked.id, "revoked_at": _time(revoked.revoked_at)})


def _entry_for(ca: CaParts, asked: NewToken) -> RegistrationEntry:
    if (asked.entry is None) == (asked.spiffe_id is None):
        raise Malformed("a token is for an entry or for a spiffe_id: give one of them")
    if asked.entry is not None:
        if asked.dns_names or asked.ip_addresses or asked.max_ttl is not None:
            raise Malformed(
                "dns_names, ip_addresses and max_ttl are the entry's: leave them out, or give a spiffe_id instead"
            )
        return ca.entries.find(asked.entry).entry
    entry_id = new_entry_id()
    return read_entry(
        entry_id,
        ca.trust_domain,
        selectors=[str(Selector("token", entry_id))],
        spiffe_id=asked.spiffe_id or "",
        dns_names=asked.dns_names,
        ip_addresses=asked.ip_addresses,
        max_ttl=asked.max_ttl,
    )


def _reason(text: str) -> str:
    if len(text) > _LONGEST_REASON or not text.isprintable():
        raise Malformed(
            f"reason {printable(text, 40)!r}… is one line of at most {_LONGEST_REASON} characters"
        )
    return text


def _entry(known: Registered) -> dict[str, Any]:
    return {
        **known.entry.members(),
        "source": str(known.source),
        "honoured": known.is_honoured,
        "created_at": _time(known.created_at),
    }


def _token(token: IssuedToken, spiffe_id: str | None, now: datetime) -> dict[str, Any]:
    return {
        "id": token.id,
        "entry": token.entry,
        "spiffe_id": spiffe_id,
        "key": token.key,
        "status": str(token.status(now)),
        "created_at": _time(token.created_at),
        "expires_at": _time(token.expires_at),
        "revoked_at": _time(token.revoked_at),
        "spent_at": _time(token.spent_at),
        "serial": None if token.serial is None else serial_hex(token.serial),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
