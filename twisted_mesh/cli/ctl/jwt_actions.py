"""What ``mesh-ctl jwt`` does: list, rotate, retire."""

import re

import msgspec
from attrs import frozen

from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.jwt_messages import JwtKeyRow, JwtKeyRows
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED

_HEADINGS = ("KEY", "ALG", "STATE", "PUBLISHED", "SIGNS FROM", "UNTIL")
_BEGINNING = re.compile(r"[0-9a-f]{8,64}", re.ASCII)


def beginning_of(kid: str) -> str:
    """A key's name, or how it begins. Raises :class:`Unusable`."""
    if not _BEGINNING.fullmatch(kid):
        raise Unusable(
            "KID is the name of a key, 64 digits of hex as jwt list shows it, or at least the first 8 of them"
        )
    return kid


@frozen
class Listing:
    """``jwt list``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        _put(await administration.jwt_keys(), as_json=self.as_json)
        return DONE


@frozen
class Rotating:
    """``jwt rotate``."""

    at_once: bool
    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        question = "Have another key sign JWT-SVIDs"
        question += " before everybody can have heard of it?" if self.at_once else "?"
        if not confirmed(question, yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        keys = await administration.rotate_jwt_key(at_once=self.at_once, reason=self.reason)
        _put(keys, as_json=self.as_json)
        prepared = next((key for key in keys.keys if key.state == "prepared"), None)
        if prepared is not None and not self.as_json:
            output.say(f"{prepared.kid} signs from {prepared.until} on")
        return DONE


@frozen
class Retiring:
    """``jwt retire``."""

    kid: str
    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        keys = await administration.jwt_keys()
        found = [key for key in keys.keys if key.kid.startswith(self.kid)]
        if len(found) != 1:
            many = f"{len(found)} JWT keys begin" if found else "no JWT key begins"
            output.say(f"{many} with {self.kid}: mesh-ctl jwt list shows them")
            return REFUSED
        (key,) = found
        question = f"Take the {key.state} key {key.kid} out of the bundle, and have all tokens of it refused?"
        if not confirmed(question, yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        _put(await administration.retire_jwt_key(key.kid, self.reason), as_json=self.as_json)
        return DONE


def _put(keys: JwtKeyRows, *, as_json: bool) -> None:
    if as_json:
        output.put_json(msgspec.to_builtins(keys))
        return
    output.put_table(_HEADINGS, map(_cells, keys.keys))
    issuer = f"their issuer is {keys.issuer}" if keys.issuer else "they have no issuer"
    output.say(f"tokens live {keys.ttl}, at most {keys.max_ttl}; {issuer}")


def _cells(key: JwtKeyRow) -> tuple[str | None, ...]:
    return key.kid, key.alg, key.state, key.published_at, key.active_at, key.until
