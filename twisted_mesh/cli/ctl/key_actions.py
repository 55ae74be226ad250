"""What ``mesh-ctl key`` does: block, let go, list."""

import msgspec
from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki.errors import printable
from pki.keys import key_id
from pki.svid.spki_pin import BadPin, SpkiHash
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.blocked_key_messages import BlockedKeyRow, NewBlockedKey
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_filters import digest_in, key_in
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED

_HEADINGS = ("KEY", "BLOCKED", "BECAUSE")


def understood(key: str, reason: str) -> NewBlockedKey:
    """What is to be blocked: a digest, or the key of a file. Raises :class:`Unusable`."""
    if (digest := _digest(key)) is not None:
        return NewBlockedKey(digest, reason=reason)
    public_key = key_in("KEY", key)
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return NewBlockedKey(public_key=pem.decode("ascii"), reason=reason)


def digest_of(key: str) -> str:
    """The SHA-256 of a key, in hex. Raises :class:`Unusable`."""
    return _digest(key) or key_id(key_in("KEY", key))


def _digest(text: str) -> str | None:
    if (digest := digest_in(text)) is not None:
        return digest
    if text.startswith("sha256/"):
        try:
            return SpkiHash.parse(text).digest.hex()
        except BadPin as error:
            raise Unusable(f"KEY: {error}") from None
    return None


@frozen
class Blocking:
    """``key block``."""

    new: NewBlockedKey
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        row = await administration.block_key(self.new)
        if self.as_json:
            output.put_json(msgspec.to_builtins(row))
            return DONE
        output.put(f"{row.key} is blocked since {row.blocked_at}: {_because(row)}")
        output.say(
            "what was certified for it before stays good: mesh-ctl cert revoke --key "
            f"{row.key} --reason keyCompromise"
        )
        return DONE


@frozen
class Unblocking:
    """``key unblock``."""

    key: str
    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        if not confirmed(f"Have certificates issued again for {self.key}?", yes=self.yes):
            output.say("nothing was changed")
            return REFUSED
        let_go = await administration.unblock_key(self.key, self.reason)
        if self.as_json:
            output.put_json(msgspec.to_builtins(let_go))
        else:
            output.put(f"{let_go.key} is not blocked any more")
        return DONE


@frozen
class Listing:
    """``key list``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        rows = await administration.blocked_keys()
        if self.as_json:
            output.put_json(msgspec.to_builtins(rows))
            return DONE
        if rows.keys:
            output.put_table(
                _HEADINGS, ((row.key, row.blocked_at, _because(row)) for row in rows.keys)
            )
        else:
            output.say("no key is blocked")
        for each in rows.lists:
            output.say(f"{printable(each.file, 200)} lists {each.keys:,} more")
        return DONE


def _because(row: BlockedKeyRow) -> str:
    if row.serial is not None:
        return f"{row.serial} was revoked as compromised"
    return f"an administrator has blocked it{': ' if row.reason else ''}{row.reason}"
