"""Texts that a signer signs: checkpoints of an audit log, and statements with a head that nothing else begins with.

Certificates, CRLs and OCSP answers are DER, and begin with a byte that none of these heads begins with.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from pki.audit.log import BadCheckpoint, Checkpoint, Verifier
from pki.errors import HOSTILE_INPUT, PkiError
from pki.keys import spki_der
from pki.keys.probe import PREFIX, is_probe
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import CheckpointEffect, HeldKey, Memory, Verdict
from pki.signing.policy import SigningPolicy
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import load_certificates

#: Characters of a statement: a document of the roots holds certificates.
_LONGEST = 1024 * 1024
_BACKUP = re.compile(r"[0-9a-f]{64}\n([^\n]*)\n", re.ASCII)

_UNREADABLE: tuple[type[BaseException], ...] = (
    *HOSTILE_INPUT,
    PkiError,
    RecursionError,
    msgspec.DecodeError,
)

PROBE = PREFIX.decode()
BACKUP = "twisted-mesh backup 1\n"
ROOTS = "twisted-mesh roots 1\n"


def judge_checkpoint(
    text: str, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    """Whether ``key`` signs it. Raises :class:`NotSignable` and :class:`SigningRefused`."""
    try:
        found = Checkpoint.parse(text)
    except BadCheckpoint as error:
        raise NotSignable(f"it is no checkpoint: {error}") from None
    facts: dict[str, str | int] = {
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
    }
    own = memory.origin_of(key)
    if own is not None and own != found.origin:
        raise SigningRefused("log-origin", f"this key signs for the log {own} and for no other")
    if abs(found.at - now) > policy.clock_skew:
        raise SigningRefused(
            "clock",
            f"the checkpoint is of {found.at.isoformat()}, and here it is {now.isoformat()}",
            "compare the two machines' clocks; nothing is backdated",
        )
    last = memory.last_checkpoint(found.origin)
    if last is not None:
        if found.size < last.size:
            raise SigningRefused(
                "log-shrinks",
                f"the log has {found.size} entries, and a checkpoint of {last.size} was signed",
                "find out who put an older state back",
            )
        if found.size == last.size and found.root != last.root:
            raise SigningRefused(
                "log-forks", f"another log of {found.size} entries was signed before"
            )
    grows = last is None or found.size > last.size
    effect = CheckpointEffect(found.origin, found.size, found.root) if grows else None
    return Verdict("checkpoint", facts, effect)


def judge_statement(text: str, key: HeldKey, policy: SigningPolicy, memory: Memory) -> Verdict:
    """Whether ``key`` signs it. Raises :class:`NotSignable` and :class:`SigningRefused`."""
    for head, judge in _STATEMENTS.items():
        if text.startswith(head):
            if len(text) > _LONGEST:
                raise NotSignable(f"a statement has at most {_LONGEST} bytes")
            facts = judge(text[len(head) :], key, policy, memory)
            return Verdict("statement", {"head": head.strip(), **facts})
    raise NotSignable(
        "it is neither a certificate, a CRL, an OCSP answer, a CSR, a checkpoint nor a statement that is known: "
        "a signer signs nothing else, and never a digest"
    )


_Facts = Mapping[str, str | int]


def _probe(rest: str, key: HeldKey, policy: SigningPolicy, memory: Memory) -> _Facts:
    if not is_probe(f"{PROBE}{rest}".encode()):
        raise NotSignable("a probe is a time or a number that somebody has drawn")
    return {}


def _backup(rest: str, key: HeldKey, policy: SigningPolicy, memory: Memory) -> _Facts:
    _demand_issuing(key)
    found = _BACKUP.fullmatch(rest)
    if found is None:
        raise NotSignable("a statement about a backup is a digest and the key of a log")
    try:
        if found[1]:
            _ = Verifier.parse(found[1])
    except BadCheckpoint as error:
        raise NotSignable(str(error)) from None
    return {"manifest": rest[:64]}


class _Roots(msgspec.Struct):
    """What is looked at of a document of the roots."""

    old: str
    new: str | None


def _roots(rest: str, key: HeldKey, policy: SigningPolicy, memory: Memory) -> _Facts:
    """A document that a restored CA believes: no root may stand in it that is somebody else's."""
    _demand_issuing(key)
    try:
        found = msgspec.json.decode(rest.encode(), type=_Roots)
        spkis = [_spki(pem) for pem in (found.old, found.new) if pem is not None]
    except _UNREADABLE:
        raise NotSignable("the document of the roots cannot be decoded") from None
    if memory.has_roots() or policy.roots:
        for spki in spkis:
            holder = memory.holder_of(spki)
            is_ours = holder is not None and holder.purpose == "root"
            if not is_ours and SpkiHash.of_spki(spki) not in policy.roots:
                raise SigningRefused(
                    "roots",
                    f"the root's key {SpkiHash.of_spki(spki)} is neither held here nor among the policy's roots",
                    "name it under roots in the policy, if it is yours",
                )
    return {"roots": ", ".join(str(SpkiHash.of_spki(spki)) for spki in spkis)}


def _spki(pem: str) -> bytes:
    # As whoever reads the document does.
    (certificate,) = load_certificates(pem.encode("ascii"))
    return spki_der(certificate.public_key())


def _demand_issuing(key: HeldKey) -> None:
    if key.purpose != "issuing":
        raise SigningRefused("purpose", "only an issuing CA's key signs this statement")


_STATEMENTS: Mapping[str, Callable[[str, HeldKey, SigningPolicy, Memory], _Facts]] = {
    PROBE: _probe,
    BACKUP: _backup,
    ROOTS: _roots,
}
