"""The routes of registration: entries and join tokens, made, listed and taken back by administrators."""

from datetime import datetime, timedelta
from http import HTTPStatus

import msgspec

from pki.errors import Malformed, discreet
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.join_token import LIFETIME
from pki.policy.selector import Selector
from pki.serial import serial_hex
from pki.validity import format_duration, parse_duration, rfc3339
from twisted_mesh.api.messages import (
    Deleted,
    MadeToken,
    NewRegistration,
    NewToken,
    Registration,
    Registrations,
    RevokedToken,
    TokenRow,
    TokenRows,
)
from twisted_mesh.ca.api.request import Call, key_digest
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.entries import new_entry_id
from twisted_mesh.ca.join_tokens import Made
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.registered import Registered
from twisted_mesh.stores.records import IssuedToken

_LONGEST_REASON = 200


async def list_entries(ca: CaParts, call: Call) -> Answer:
    """Every entry, by where it is kept and its id."""
    entries = [registration(known) for known in ca.entries.all()]
    return json_answer(Registrations(entries, format_duration(ca.lifetimes.maximum)))


async def show_entry(ca: CaParts, call: Call) -> Answer:
    """One entry. Raises :class:`Unknown`."""
    return json_answer(registration(ca.entries.find(call.rest)))


async def create_entry(ca: CaParts, call: Call) -> Answer:
    """Make an entry, and show it. Raises :class:`Refused` with every rule that it breaks, :class:`Malformed`."""
    asked = call.read(NewRegistration)
    reason = reason_of(asked.reason)
    entry = read_entry(new_entry_id(), ca.trust_domain, asked)
    made = await ca.entries.create(call.principal, entry, reason)
    return json_answer(registration(made), HTTPStatus.CREATED)


async def delete_entry(ca: CaParts, call: Call) -> Answer:
    """Delete an entry and its tokens. Raises :class:`Unknown`, :class:`EntryInFile`, :class:`Malformed`."""
    reason = reason_of(call.query.get("reason", ""))
    at = await ca.entries.delete(call.principal, call.rest, reason)
    return json_answer(Deleted(call.rest, rfc3339(at)))


async def list_tokens(ca: CaParts, call: Call) -> Answer:
    """Every join token that is remembered, newest first, without its secret."""
    bought = {known.entry.id: str(known.entry.spiffe_id) for known in ca.entries.all()}
    tokens = await ca.tokens.all()
    return json_answer(TokenRows([_token(t, bought.get(t.entry), ca.now()) for t in tokens]))


async def create_token(ca: CaParts, call: Call) -> Answer:
    """Make a join token, and show it this once. Raises :class:`Malformed`, :class:`Refused`, :class:`Unknown`."""
    asked = call.read(NewToken)
    life: timedelta = parse_duration(asked.ttl) if asked.ttl is not None else LIFETIME
    made = await ca.tokens.create(
        call.principal,
        _entry_for(ca, asked),
        life,
        key=key_digest(asked.key, "key"),
        reason=reason_of(asked.reason),
    )
    return json_answer(made_token(ca, made), HTTPStatus.CREATED)


def made_token(ca: CaParts, made: Made) -> MadeToken:
    """A token as it is shown, this once."""
    return MadeToken(
        token=made.token.text,
        id=made.token.id,
        entry=made.entry.id,
        spiffe_id=str(made.entry.spiffe_id),
        ca_url=str(ca.url),
        fingerprint=ca.authorities.fingerprint,
        expires_at=rfc3339(made.expires_at),
    )


async def revoke_token(ca: CaParts, call: Call) -> Answer:
    """Let nobody use a token any more. Raises :class:`Unknown`, :class:`Malformed`."""
    reason = reason_of(call.query.get("reason", ""))
    revoked = await ca.tokens.revoke(call.principal, call.rest, reason)
    if revoked.revoked_at is None:
        raise AssertionError("a token was revoked and is not revoked")
    return json_answer(RevokedToken(revoked.id, rfc3339(revoked.revoked_at)))


def _entry_for(ca: CaParts, asked: NewToken) -> RegistrationEntry:
    if (asked.entry is None) == (asked.spiffe_id is None):
        raise Malformed("a token is for an entry or for a spiffe_id: give one of them")
    if asked.entry is not None:
        if any((asked.dns_names, asked.ip_addresses, asked.federates_with, asked.max_ttl)):
            raise Malformed(
                "dns_names, ip_addresses, max_ttl and federates_with are the entry's: leave them out, or give a "
                "spiffe_id instead"
            )
        return ca.entries.find(asked.entry).entry
    entry_id = new_entry_id()
    said = EntryMembers(
        selectors=[str(Selector("token", entry_id))],
        spiffe_id=asked.spiffe_id or "",
        dns_names=asked.dns_names,
        ip_addresses=asked.ip_addresses,
        max_ttl=asked.max_ttl,
        federates_with=asked.federates_with or msgspec.UNSET,
    )
    return read_entry(entry_id, ca.trust_domain, said)


def reason_of(text: str) -> str:
    """What an administrator says of an act, for the audit log. Raises :class:`Malformed`."""
    if len(text) > _LONGEST_REASON or not text.isprintable():
        raise Malformed(
            f"reason {discreet(text, 40)!r}… is one line of at most {_LONGEST_REASON} characters"
        )
    return text


def registration(known: Registered) -> Registration:
    """An entry as it is told."""
    return Registration(
        **msgspec.structs.asdict(known.entry.members()),
        source=str(known.source),
        honoured=known.is_honoured,
        created_at=optional_time(known.created_at),
    )


def _token(token: IssuedToken, spiffe_id: str | None, now: datetime) -> TokenRow:
    return TokenRow(
        id=token.id,
        entry=token.entry,
        spiffe_id=spiffe_id,
        key=token.key,
        status=str(token.status(now)),
        created_at=rfc3339(token.created_at),
        expires_at=rfc3339(token.expires_at),
        revoked_at=optional_time(token.revoked_at),
        spent_at=optional_time(token.spent_at),
        serial=None if token.serial is None else serial_hex(token.serial),
    )
