"""Keys that nothing is certified for: compromised ones, those that administrators have blocked, and those of lists."""

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.audit.log import Act, Entry
from pki.codes import Code
from pki.errors import Problem
from pki.keys.key_list import LARGEST_LIST, BadKeyList, KeyList, KeyMarks, listing
from pki.policy.principal import Principal
from pki.serial import serial_hex
from pki.validity import rfc3339
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateError, read_trusted
from twisted_mesh.stores.commands import BlockKey, UnblockKey
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import BlockedKey

_log = logger("ca")


class BadBlockedKeys(StateError):
    """A file of ``--blocked-keys`` cannot be used."""


def read_lists(paths: Sequence[str]) -> tuple[KeyList, ...]:
    """The lists of ``--blocked-keys``. Raises :class:`StateError`, also for a file that others may change."""
    found = []
    for path in paths:
        data = read_trusted(Path(path), "--blocked-keys", LARGEST_LIST)
        try:
            found.append(KeyList.parse(path, data))
        except BadKeyList as error:
            raise BadBlockedKeys(f"--blocked-keys: {error}") from None
    return tuple(found)


@define(eq=False, repr=False)
class BlockedKeys:
    """Keeps those of the store in memory as well; the store has the last word, when a certificate is recorded."""

    store: IStore
    log: AuditLog
    now: Now
    lists: tuple[KeyList, ...] = ()
    """Those of ``--blocked-keys``."""
    _watchers: list[Callable[[], object]] = field(factory=list, init=False)
    _known: dict[str, BlockedKey] = field(factory=dict, init=False)
    _by_number: dict[str, BlockedKey] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """How many are in the store."""
        return len(self._known)

    async def load(self) -> None:
        """Read those of the store. Raises :class:`StoreError`."""
        known = await self.store.blocked_keys()
        self._known = {each.spki: each for each in known}
        self._by_number = {each.number: each for each in known if each.number is not None}
        self._tell()

    def watch(self, changed: Callable[[], object]) -> None:
        """Have ``changed`` called whenever other keys may be blocked than before."""
        self._watchers.append(changed)

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()

    def all(self) -> Sequence[BlockedKey]:
        """Those of the store, the oldest first."""
        return tuple(self._known.values())

    def problem(
        self, key: PublicKeyTypes, spki: bytes = b"", subject: str = "csr"
    ) -> Problem | None:
        """Why nothing is certified for a key; None where it may be. ``spki`` is its own, where that is known."""
        if not self._known and not self.lists:
            return None
        marks = KeyMarks.of(key, spki)
        known = self._known.get(marks.spki.hex())
        how = "this key"
        if known is None and marks.number:
            # Another exponent, or the other point with that x: the private half is as well known.
            known = self._by_number.get(marks.number.hex())
            how = "a key of the same private half"
        if known is not None:
            return _blocked(f"{how} {_because(known)}", subject)
        listed = listing(self.lists, marks)
        return None if listed is None else _blocked(f"this key is on the list {listed}", subject)

    def replace_lists(self, lists: tuple[KeyList, ...]) -> str:
        """Have these count from now on; what has changed by that, in words."""
        before, self.lists = self.lists, lists
        is_same = [each.content for each in before] == [each.content for each in lists]
        self._tell()
        return "" if is_same else ", ".join(f"{each.name}: {len(each)} keys" for each in lists)

    async def block(self, principal: Principal, key: PublicKeyTypes | str, why: str) -> BlockedKey:
        """Have nothing certified any more for a key, or for one of that SHA-256; what stands then.

        What was certified for it before is not revoked by that. Raises :class:`StoreError`.
        """
        if isinstance(key, str):
            blocked = BlockedKey(key, self.now(), reason=why)
        else:
            marks = KeyMarks.of(key)
            number = marks.number.hex() or None
            blocked = BlockedKey(marks.spki.hex(), self.now(), number, reason=why)
        found = await self.store.apply(
            BlockKey(blocked, self._act(principal, blocked.spki, "block", why))
        )
        await self.load()
        _log.warn(
            "Key blocked: {spki}\n  By: {requester}",
            event="key-blocked",
            spki=found.spki,
            requester=str(principal),
        )
        return found

    async def unblock(self, principal: Principal, spki: str, why: str) -> None:
        """Take that back. Raises :class:`Unknown`, and :class:`Conflict` for a key that was compromised."""
        await self.store.apply(UnblockKey(spki, self._act(principal, spki, "unblock", why)))
        await self.load()
        _log.warn(
            "Key not blocked any more: {spki}\n  By: {requester}",
            event="key-unblocked",
            spki=spki,
            requester=str(principal),
        )

    def _act(self, principal: Principal, spki: str, did: str, why: str) -> Entry:
        facts = {"did": f"{did}-key"} | ({"reason": why} if why else {})
        return self.log.entry(Act.ADMINISTER, principal, f"key {spki}", facts)


def _because(known: BlockedKey) -> str:
    at = rfc3339(known.blocked_at)
    if known.serial is not None:
        return f"was compromised: its certificate {serial_hex(known.serial)} was revoked for that at {at}"
    return f"was blocked by an administrator at {at}" + (
        f" ({known.reason})" if known.reason else ""
    )


def _blocked(detail: str, subject: str) -> Problem:
    return Problem(
        code=Code.BLOCKED_KEY,
        detail=detail,
        remedy="make a new key",
        rule="CA/Browser Forum BR section 6.1.1.3",
        subject=subject,
    )
