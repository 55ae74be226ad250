"""Of one serial a key signs a precertificate and one certificate, which differ in what logs have to do with them alone.

Both are taken back to the draft that they were made of, and that is judged as any other certificate is. The policy may
say that no workload's certificate is signed without SCTs: then a thief in the CA's process has none either that no log
knows of.
"""

from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from attrs import frozen

from pki.ct.entry import EntryType, SignedEntry
from pki.ct.errors import BadSct
from pki.ct.precertificate import (
    POISON_OID,
    SCT_LIST_OID,
    embedded_list,
    is_poisoned,
    with_poison,
    with_scts,
    without_poison,
    without_scts,
)
from pki.ct.receipt import FUTURE, verify_sct
from pki.ct.sct import SignedCertificateTimestamp, list_bytes, parse_list
from pki.der import oid_content
from pki.errors import PkiError
from pki.serial import serial_hex
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import HeldKey, Memory
from pki.signing.policy import SigningPolicy

_OIDS = oid_content(POISON_OID), oid_content(SCT_LIST_OID)


class Stage(StrEnum):
    """What a certificate is to logs."""

    UNLOGGED = "unlogged"
    PRECERTIFICATE = "precertificate"
    FINAL = "final"
    """With SCTs."""


@frozen
class Logged:
    """What is to be signed, taken apart: ``drafted`` has neither poison nor SCTs."""

    stage: Stage
    drafted: bytes
    scts: tuple[SignedCertificateTimestamp, ...] = ()

    @classmethod
    def read(cls, tbs: bytes) -> "Logged":
        """Raises :class:`NotSignable` for what is not written as we would."""
        if not any(oid in tbs for oid in _OIDS):
            return cls(Stage.UNLOGGED, tbs)  # in whatever way it is written, there is neither
        try:
            if is_poisoned(tbs):
                found = cls(Stage.PRECERTIFICATE, without_poison(tbs))
                again = with_poison(found.drafted)
            elif (listed := embedded_list(tbs)) is not None:
                found = cls(Stage.FINAL, without_scts(tbs), parse_list(listed))
                again = with_scts(found.drafted, list_bytes(found.scts))
            else:
                return cls(Stage.UNLOGGED, tbs)
        except PkiError as error:
            raise NotSignable(f"what logs have to do with it cannot be decoded: {error}") from None
        if again != tbs:
            raise NotSignable(
                "the poison or the list of SCTs is not the last extension, or not written as its content would be"
            )
        return found

    @property
    def digest(self) -> str:
        """By what a precertificate and its certificate are known to be of one draft."""
        return sha256(self.drafted).hexdigest()


def demand_pair(logged: Logged, tbs: bytes, key: HeldKey, serial: int, memory: Memory) -> bool:
    """Whether this very one was signed before. Raises :class:`SigningRefused` for another of that serial."""
    shown, certified = memory.precertified(key, serial), memory.certified(key, serial)
    name = serial_hex(serial)
    if logged.stage is Stage.PRECERTIFICATE:
        other = certified if shown is None else shown
        if other is not None and (shown is None or other.sha256 != logged.digest):
            raise _reused(f"serial {name} is that of another certificate of this key")
        return shown is not None
    if shown is not None and shown.sha256 != logged.digest:
        raise SigningRefused(
            "precertificate",
            f"the certificate of serial {name} differs from its precertificate in more than the list of SCTs",
            "sign what logs were shown, and nothing else",
        )
    if certified is not None and certified.sha256 != sha256(tbs).hexdigest():
        raise _reused(f"serial {name} is that of another certificate of this key")
    if shown is None and logged.stage is Stage.FINAL:
        raise SigningRefused(
            "precertificate",
            f"there are SCTs in the certificate of serial {name}, and no precertificate of it was signed here",
            "have the precertificate signed first: logs answer nothing else",
        )
    return certified is not None


def _reused(detail: str) -> SigningRefused:
    return SigningRefused("serial-reuse", detail, "draw a new serial for each certificate")


def demand_receipts(logged: Logged, key: HeldKey, policy: SigningPolicy, now: datetime) -> None:
    """A workload's certificate has as many SCTs as the policy says. Raises :class:`SigningRefused`."""
    if logged.stage is Stage.PRECERTIFICATE or not policy.require_sct:
        return
    entry = SignedEntry(EntryType.PRECERT, logged.drafted, sha256(key.spki).digest())
    known = {log.log_id: log for log in policy.log_keys}
    good, objections = set[bytes](), list[str]()
    for sct in logged.scts:
        log = known.get(sct.log_id)
        if log is None:
            objections.append(f"log {sct.log_id.hex()[:16]}… is not among the policy's log-keys")
        elif sct.at > now + FUTURE:
            objections.append(f"the SCT of log {sct.log_id.hex()[:16]}… is from the future")
        else:
            try:
                verify_sct(sct, entry, log)
                good.add(sct.log_id)
            except BadSct as error:
                objections.append(str(error))
    if len(good) < policy.require_sct:
        told = "".join(f"; {objection}" for objection in objections)
        raise SigningRefused(
            "no-sct",
            f"it has SCTs of {len(good)} logs of the policy, and {policy.require_sct} are demanded{told}",
            "have logs answer the precertificate (mesh-ca --ct-log), or change require-sct in the policy",
        )
