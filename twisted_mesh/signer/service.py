"""A signer: keys, the judge of what they sign, and how often they may."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from attrs import define, field
from msgspec import structs
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.errors import PkiError
from pki.signing.errors import NotSignable, SigningRefused
from twisted_mesh.limits.rate_limit import Rate, RateLimited, TokenBuckets
from twisted_mesh.runtime.clock import Now
from twisted_mesh.signer.judging import Asked, Judging
from twisted_mesh.signer.key_row import KeyRow
from twisted_mesh.signer.keyring import Keyring
from twisted_mesh.signer.messages import (
    Key,
    KeyList,
    KeyPurpose,
    KeyWhereabouts,
    NewKey,
    Signature,
    SignRequest,
    WhereaboutsRequest,
)
from twisted_mesh.signer.record import unknown
from twisted_mesh.signer.signing_log import Said

#: What may be asked how often, but for certificates: statements, checkpoints, CSRs, new keys, lists of keys.
_OTHERS = Rate(20, 200)
REVOCATION = "revocation"
CERTIFICATES = "certificates"
OTHERS = "others"


def sort_of(data: bytes) -> str:
    """What it is probably, by its first bytes: by that its rate is counted, and how long it waits."""
    if data[:1] != b"\x30" or len(data) < 8:
        return OTHERS
    octets = data[1] & 0x7F if data[1] >= 0x80 else 0
    first = data[2 + octets : 5 + octets]
    if first[:1] == b"\xa0":
        return CERTIFICATES
    if first[:1] in (b"\xa1", b"\xa2") or first == b"\x02\x01\x01":
        return REVOCATION
    return OTHERS


@define(eq=False)
class Signer:
    """What is answered to each question of the protocol."""

    keyring: Keyring
    judging: Judging
    clock: IReactorTime
    now: Now
    log: Logger
    certificate_rate: Rate
    revocation_rate: Rate
    signed: dict[tuple[str, str], int] = field(factory=dict, init=False)
    """How many of each kind, by the key's purpose: for metrics."""
    refused: Counter[str] = field(factory=Counter, init=False)
    """How many each rule has refused."""
    _rows: dict[str, KeyRow] = field(factory=dict, init=False)
    _rates: Mapping[str, TokenBuckets] = field(init=False)
    _making: DeferredLock = field(factory=DeferredLock, init=False)

    def __attrs_post_init__(self) -> None:
        rates = {
            CERTIFICATES: self.certificate_rate,
            REVOCATION: self.revocation_rate,
            OTHERS: _OTHERS,
        }
        self._rates = {sort: TokenBuckets(rate, self.clock.seconds) for sort, rate in rates.items()}

    def load(self) -> None:
        """Have all keys at hand. Raises :class:`PkiError`."""
        for row in self.judging.record.all_keys():
            self.keyring.load(row)
            self._rows[row.held.name] = row

    def keys(self) -> KeyList:
        """All of them."""
        self._charge(OTHERS)
        return KeyList(self.shown)

    @property
    def shown(self) -> tuple[Key, ...]:
        """The same, asked by nobody who is counted."""
        return tuple(map(_shown, self._rows.values()))

    async def make(self, asked: NewKey, by: str) -> Key:
        """A new one. Raises :class:`PkiError`."""
        self._charge(OTHERS)
        await self._making.acquire()
        try:
            most = self.judging.policy.max_keys
            if len(self._rows) >= most:
                raise SigningRefused(
                    "max-keys",
                    f"there are {len(self._rows)} keys, and the policy lets the signer make {most} (max-keys)",
                    "raise it, where these are all yours",
                )
            name = self._name(asked.purpose)
            row = await self.keyring.make(asked, name)
            await self.judging.add_key(row, by)
            self._rows[name] = row
        finally:
            self._making.release()
        self.log.info(
            "Made the key {key} ({algorithm}) for {by}: {label}",
            event="signer-key-made",
            key=name,
            algorithm=asked.algorithm,
            by=by,
            label=asked.label,
        )
        return _shown(row)

    async def sign(self, asked: SignRequest, by: str) -> Signature:
        """The signature, where the judge lets it. Raises :class:`PkiError`."""
        row = self._row(asked.key)
        sort = sort_of(asked.data)
        self._charge(sort)
        held = row.held
        try:
            verdict = await self.judging.judge(
                Asked(held, asked.data, by), is_urgent=sort == REVOCATION
            )
        except (NotSignable, SigningRefused) as error:
            self.refused[getattr(error, "rule", "not-signable")] += 1
            raise
        signature = await self.keyring.sign(held, asked.data)
        counted = held.purpose, verdict.kind
        self.signed[counted] = self.signed.get(counted, 0) + 1
        return Signature(signature)

    async def whereabouts(self, asked: WhereaboutsRequest) -> KeyWhereabouts:
        """Where a key is, and why it cannot sign now: be it that nothing can be recorded. Raises :class:`PkiError`."""
        self._charge(OTHERS)
        found = await self.keyring.whereabouts(self._row(asked.key))
        if self._unrecorded and not found.problem:
            with suppress(PkiError):  # it stays the problem then
                await self.judging.do(self._resumed)
            found = structs.replace(found, problem=self._unrecorded)
        return found

    @property
    def _unrecorded(self) -> str:
        """Why nothing can be recorded; empty where it can."""
        return "" if self.judging.problem is None else str(self.judging.problem)

    def _resumed(self) -> list[Said]:
        """What the log says where nothing could be written, once it can."""
        return [Said(self.now().isoformat(), "resume", "", by="signer")]

    @property
    def problem(self) -> PkiError | None:
        """Why nothing can be signed now."""
        if self.judging.problem is not None:
            return self.judging.problem
        return next(iter(self.keyring.stores.problems.values()), None)

    def _name(self, purpose: KeyPurpose) -> str:
        """One that no key ever had: keys stay on record, whatever becomes of them."""
        found = (name.rpartition("-") for name in self._rows)
        numbers = (int(n) for kind, _, n in found if kind == purpose and n.isdecimal())
        return f"{purpose}-{max(numbers, default=0) + 1}"

    def _row(self, name: str) -> KeyRow:
        # Not out of the record: that is its thread's.
        if name not in self._rows:
            raise unknown(name)
        return self._rows[name]

    def _charge(self, sort: str) -> None:
        buckets = self._rates[sort]
        if wait := buckets.take(sort):
            raise RateLimited(
                f"this signer answers {buckets.rate.per_second} requests about {sort} a second, and that is used up",
                wait,
            )


def _shown(row: KeyRow) -> Key:
    held = row.held
    return Key(
        held.name,
        str(held.algorithm),
        held.spki,
        KeyPurpose(held.purpose),
        row.label,
        row.store,
    )
