"""A signer's memory in dictionaries, and a key that signs only what the judge lets it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from attrs import define, field
from cryptography import x509

from pki.issuing.unsigned import assemble
from pki.keys import KeyAlgorithm, MemoryKey, PublicKey, spki_der
from pki.signing.judge import judge
from pki.signing.memory import (
    CertificateEffect,
    Certified,
    CheckpointEffect,
    CrlEffect,
    Effect,
    HeldKey,
    PrecertificateEffect,
    SignedCheckpoint,
    SignedCrl,
    Verdict,
)
from pki.signing.policy import SigningPolicy


@define(eq=False)
class Remembered:
    """See :class:`pki.signing.memory.Memory`."""

    held: dict[bytes, HeldKey] = field(factory=dict)
    certificates: dict[str, list[x509.Certificate]] = field(factory=dict)
    known: dict[tuple[str, int], Certified] = field(factory=dict)
    shown: dict[tuple[str, int], Certified] = field(factory=dict)
    crls: dict[str, SignedCrl] = field(factory=dict)
    lists: dict[str, set[int]] = field(factory=dict)
    checkpoints: dict[str, SignedCheckpoint] = field(factory=dict)
    origins: dict[str, str] = field(factory=dict)
    approved: set[bytes] = field(factory=set)

    def certificates_of(self, key: HeldKey) -> Sequence[x509.Certificate]:
        return self.certificates.get(key.name, [])

    def holder_of(self, spki: bytes) -> HeldKey | None:
        return self.held.get(spki)

    def is_approved(self, spki: bytes, now: datetime) -> bool:
        return spki in self.approved

    def certified(self, key: HeldKey, serial: int) -> Certified | None:
        return self.known.get((key.name, serial))

    def precertified(self, key: HeldKey, serial: int) -> Certified | None:
        return self.shown.get((key.name, serial))

    def last_crl(self, key: HeldKey) -> SignedCrl | None:
        return self.crls.get(key.name)

    def listed(self, key: HeldKey) -> Mapping[int, datetime | None]:
        found = {serial: self.certified(key, serial) for serial in self.lists.get(key.name, ())}
        return {serial: known and known.not_after for serial, known in found.items()}

    def last_checkpoint(self, origin: str) -> SignedCheckpoint | None:
        return self.checkpoints.get(origin)

    def origin_of(self, key: HeldKey) -> str | None:
        return self.origins.get(key.name)

    def has_roots(self) -> bool:
        return any(key.purpose == "root" for key in self.held.values())

    def apply(self, key: HeldKey, effect: Effect | None) -> None:
        match effect:
            case CertificateEffect():
                self.known[key.name, effect.serial] = Certified("", effect.not_after)
                self._certify(key, effect)
            case PrecertificateEffect():
                self.shown[key.name, effect.serial] = Certified(effect.sha256, effect.not_after)
            case CrlEffect():
                self.crls[key.name] = SignedCrl(effect.number, effect.sha256)
                listed = self.lists.setdefault(key.name, set())
                self.lists[key.name] = (listed - effect.dropped) | effect.added.keys()
            case CheckpointEffect():
                self.checkpoints[effect.origin] = SignedCheckpoint(effect.size, effect.root)
                self.origins[key.name] = effect.origin

    def _certify(self, key: HeldKey, effect: CertificateEffect) -> None:
        if not effect.is_ca:
            return
        der = assemble(effect.tbs, key.algorithm.identifier)
        certificate = x509.load_der_x509_certificate(der)
        holder = self.held.get(spki_der(certificate.public_key()))
        if holder is not None:
            self.certificates.setdefault(holder.name, []).append(certificate)


@define(eq=False)
class JudgedKey:
    """A :class:`pki.keys.SigningKey` behind a judge, which remembers what it has let through."""

    held: HeldKey
    key: MemoryKey
    policy: SigningPolicy
    memory: Remembered
    now: datetime
    verdicts: list[Verdict] = field(factory=list)
    is_in_memory = False

    @classmethod
    def made(
        cls,
        purpose: str,
        key: MemoryKey,
        policy: SigningPolicy,
        memory: Remembered,
        now: datetime,
        *,
        is_made_here: bool = True,
    ) -> "JudgedKey":
        spki = spki_der(key.public_key)
        name = f"{purpose}-{len(memory.held) + 1}"
        held = HeldKey(name, purpose, key.algorithm, key.public_key, spki, is_made_here)
        memory.held[spki] = held
        return cls(held, key, policy, memory, now)

    @property
    def algorithm(self) -> KeyAlgorithm:
        return self.key.algorithm

    @property
    def public_key(self) -> PublicKey:
        return self.key.public_key

    async def sign(self, data: bytes) -> bytes:
        self.judge(data)
        return await self.key.sign(data)

    def judge(self, data: bytes) -> Verdict:
        verdict = judge(data, self.held, self.policy, self.memory, self.now)
        self.memory.apply(self.held, verdict.effect)
        if isinstance(verdict.effect, CertificateEffect):
            self._remember(data, verdict.effect)
        self.verdicts.append(verdict)
        return verdict

    def _remember(self, data: bytes, effect: CertificateEffect) -> None:
        known = Certified(sha256(data).hexdigest(), effect.not_after)
        self.memory.known[self.held.name, effect.serial] = known
