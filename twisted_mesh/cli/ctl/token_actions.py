"""What ``mesh-ctl token`` does: create, list, revoke."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import HOSTILE_INPUT, Malformed, PkiError, printable
from pki.issuing.csr import load_csr
from pki.keys import key_id
from pki.policy.entry import EntryMembers, read_entry
from pki.policy.join_token import MAX_LIFETIME, JoinToken
from pki.spiffe import SpiffeId
from pki.validity import format_duration, parse_duration, parse_rfc3339, rfc3339
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import NewToken, TokenRow
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_actions import pairs
from twisted_mesh.cli.ctl.cert_filters import digest_of
from twisted_mesh.cli.ctl.entry_actions import naming_options
from twisted_mesh.cli.ctl.joining import Joining, reaching_options
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.state.directory import read_file

_HEADINGS = ("TOKEN", "SPIFFE ID", "STATUS", "CREATED", "EXPIRES", "ENTRY", "BOUGHT")
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)


def understood(
    *,
    entry: str | None,
    spiffe_id: str | None,
    dns_names: Sequence[str],
    ip_addresses: Sequence[str],
    federates_with: Sequence[str] = (),
    cert_ttl: str | None,
    ttl: str | None,
    key: str | None,
    reason: str,
) -> NewToken:
    """What the options ask for. Raises :class:`Unusable`, which names the options that cannot be used."""
    if spiffe_id is not None:
        with naming_options({"max_ttl": "--cert-ttl"}):
            named = SpiffeId.parse(spiffe_id)
            said = EntryMembers(
                selectors=["token:new"],
                spiffe_id=spiffe_id,
                dns_names=list(dns_names),
                ip_addresses=list(ip_addresses),
                max_ttl=cert_ttl,
                federates_with=list(federates_with) or msgspec.UNSET,
            )
            read_entry("new", named.trust_domain, said)
    if ttl is not None:
        check_life(ttl)
    return NewToken(
        entry=entry,
        spiffe_id=spiffe_id,
        dns_names=list(dns_names),
        ip_addresses=list(ip_addresses),
        max_ttl=cert_ttl,
        ttl=ttl,
        federates_with=list(federates_with),
        key=None if key is None else digest_of(key, "--key takes"),
        reason=reason,
    )


def check_life(text: str) -> None:
    """Raises :class:`Unusable` where no token can live that long."""
    try:
        life = parse_duration(text)
    except PkiError as error:
        raise Unusable(f"--ttl: {error}") from None
    if not life or life > MAX_LIFETIME:
        raise Unusable(f"--ttl: a token lives from 1s to {format_duration(MAX_LIFETIME)}")


def key_of(csr: str) -> str:
    """The key in a file with a CSR. Raises :class:`PkiError`."""
    try:
        return key_id(load_csr(read_file(Path(csr), "--csr")).public_key())
    except HOSTILE_INPUT:
        raise Malformed(
            f"--csr {csr}: its public key is none that a certificate can have"
        ) from None


def id_of(token: str) -> str:
    """The id of a token that is named by its id or by its text. Raises :class:`Unusable`."""
    if _ID.fullmatch(token):
        return token
    try:
        return JoinToken.parse(token).id
    except PkiError:
        raise Unusable(  # without the text: it may be most of a token
            "TOKEN is neither the id of a token, 12 digits of hex as token list shows it, nor a whole token"
        ) from None


@frozen
class Creating:
    """``token create``."""

    new: NewToken
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        made = await administration.create_token(self.new)
        if self.as_json:
            output.put_json(msgspec.to_builtins(made))
            return DONE
        output.put_facts(
            {
                "token": made.id,
                "buys": f"one certificate of {made.spiffe_id}",
                "until": rfc3339(parse_rfc3339(made.expires_at)),
                "entry": f"{made.entry} (renewals last until it is deleted)",
            }
        )
        if self.new.key is not None:
            output.put(
                f"\nOnly a certificate request with the key {self.new.key} is signed. Send it with:\n"
            )
            output.put(f"  {shlex.join(reaching_options(made))}")
            return DONE
        output.put(f"\n{Joining.of(made, self.new).told()}")
        return DONE


@frozen
class Listing:
    """``token list``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = await administration.tokens()
        nothing = "there are no tokens"
        output.put_rows(rows, _HEADINGS, _cells, nothing, as_json=self.as_json)
        return DONE


def _cells(row: TokenRow) -> tuple[str | None, ...]:
    bought = None if row.serial is None else pairs(row.serial)
    return row.id, row.spiffe_id, row.status, row.created_at, row.expires_at, row.entry, bought


@frozen
class Revoking:
    """``token revoke``."""

    token: str
    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = await administration.tokens()
        row = next((row for row in rows if row.id == self.token), None)
        if row is not None and not confirmed(self._question(row), yes=self.yes):
            output.say("nothing was revoked")
            return REFUSED
        revoked = await administration.revoke_token(self.token, self.reason)
        if self.as_json:
            output.put_json(msgspec.to_builtins(revoked))
        else:
            output.put(f"token {revoked.id} revoked at {revoked.revoked_at}")
        if row is not None and row.serial is not None:
            output.say(
                f"it had bought the certificate {pairs(row.serial)}, which stays: see mesh-ctl cert revoke, and "
                f"mesh-ctl entry delete {printable(row.entry, 80)} to end renewals"
            )
        return DONE

    def _question(self, row: TokenRow) -> str:
        whose = printable(row.spiffe_id or "nothing", 200)
        return f"Revoke the token {row.id} for {whose} ({row.status}), for good?"
