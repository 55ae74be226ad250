"""CRLs that a signer is asked to sign: read, laid out anew, and held against the last one of the same key.

A number is used once and rises; what the last list had stays until its certificate has ended; nothing in a list
takes a revocation back.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from attrs import frozen
from cryptography import x509

from pki.crl.entries import decode_entries, encode_entries, revocations
from pki.crl.issue import lay_out_crl
from pki.der import SEQUENCE, elements
from pki.errors import HOSTILE_INPUT, Malformed
from pki.issuing.profile import ISSUING_NAME, ROOT_NAME, ca_subject, generation_of
from pki.issuing.unsigned import assemble
from pki.keys import key_identifier
from pki.serial import serial_hex
from pki.signing.certificate import is_same
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import CrlEffect, HeldKey, Memory, Verdict
from pki.signing.policy import SigningPolicy
from pki.svid.revocation_set import GIVEN_REASONS, Reason, Revocation
from pki.svid.x509svid import extension

_SECOND = timedelta(seconds=1)
#: CRLs are numbered by the time in milliseconds, or lower: who once had the highest of all would have had the last.
_AHEAD = timedelta(hours=1)
_MILLISECONDS = 1000
#: A list begins a little before it was made, for those whose clocks are behind.
_BACK = timedelta(minutes=1)
_FIELDS = 5
_UNREADABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed)
_NO_END = datetime(9999, 12, 31, tzinfo=UTC)


@frozen(eq=False, repr=False)
class ReadList:
    """A TBSCertList that is written as we write them."""

    issuer: x509.Name
    identifier: bytes
    number: int
    this_update: datetime
    next_update: datetime
    entries: Mapping[int, Revocation]


def read_list(tbs: bytes, key: HeldKey) -> ReadList:
    """What ``key`` is to sign. Raises :class:`NotSignable`."""
    algorithm = key.algorithm.identifier
    try:
        found = x509.load_der_x509_crl(assemble(tbs, algorithm))
        (whole,) = elements(tbs)
        fields = list(elements(whole.content))
        listed = fields[_FIELDS] if len(fields) > _FIELDS + 1 else None
        content = listed.content if listed is not None and listed.tag == SEQUENCE else b""
        entries = {r.serial: r for r in revocations(decode_entries(content).items(), "", _NO_END)}
        number = extension(found, x509.CRLNumber)
        identifier = extension(found, x509.AuthorityKeyIdentifier)
        named = identifier.key_identifier if identifier else None
        next_update = found.next_update_utc
        if number is None or named is None or next_update is None:
            raise ValueError("it has no number, no next update or no key identifier")
        again = lay_out_crl(
            algorithm,
            found.issuer.public_bytes(),
            named,
            b"".join(encode_entries((entry,)) for entry in entries.values()),
            number.crl_number,
            this_update=found.last_update_utc,
            next_update=next_update,
        )
    except _UNREADABLE as error:
        raise NotSignable(f"it begins as a CRL and cannot be decoded ({error})") from None
    if again != tbs:
        raise NotSignable(
            "the CRL is not written as its own content would be: another reader might see another one in it"
        )
    return ReadList(
        found.issuer, named, number.crl_number, found.last_update_utc, next_update, entries
    )


def judge_crl(
    tbs: bytes, key: HeldKey, policy: SigningPolicy, memory: Memory, now: datetime
) -> Verdict:
    """Whether ``key`` signs it. Raises :class:`NotSignable` and :class:`SigningRefused`."""
    found = read_list(tbs, key)
    _demand_issuer(found, key, policy, memory)
    digest = sha256(tbs).hexdigest()
    facts: dict[str, str | int] = {
        "number": found.number,
        "entries": len(found.entries),
        "next_update": found.next_update.isoformat(),
    }
    last = memory.last_crl(key)
    if last is not None and (last.number, last.sha256) == (found.number, digest):
        return Verdict("crl", facts)
    if last is not None and found.number <= last.number:
        raise SigningRefused(
            "crl-number",
            f"the CRL has the number {found.number}, and one with {last.number} was signed",
            "take the next number; a signed list is never replaced by an older or another one of its number",
        )
    if found.number > (now + _AHEAD).timestamp() * _MILLISECONDS:
        raise SigningRefused(
            "crl-number",
            f"the CRL's number {found.number} is ahead of the time in milliseconds: no other could follow it",
            "take the last number and one, or the time in milliseconds where that is more",
        )
    _demand_times(found, key, policy, now)
    _demand_entries(found, policy, now)
    listed = memory.listed(key)
    dropped = frozenset(listed.keys() - found.entries.keys())
    kept = sorted(serial for serial in dropped if not _is_over(listed[serial], key, found, now))
    if kept:
        raise SigningRefused(
            "crl-drops",
            f"{len(kept)} that the last CRL lists have not expired and are missing, {serial_hex(kept[0])} among them",
            "list what is revoked until its certificate has ended",
        )
    added: dict[int, datetime | None] = {}
    for serial in found.entries.keys() - listed.keys():
        # Of what was written off only the precertificate was signed.
        known = memory.certified(key, serial) or memory.precertified(key, serial)
        added[serial] = known.not_after if known is not None else None
    facts["added"], facts["dropped"] = len(added), len(dropped)
    return Verdict("crl", facts, CrlEffect(found.number, digest, added, dropped))


def _is_over(ended: datetime | None, key: HeldKey, found: ReadList, now: datetime) -> bool:
    """Whether a certificate has ended, by the list's own time as well as by ours.

    One that is not known was never signed, by a key that was made here; of another key it may have been.
    """
    if ended is None:
        return key.is_made_here
    return ended < min(found.this_update, now)


def _demand_issuer(found: ReadList, key: HeldKey, policy: SigningPolicy, memory: Memory) -> None:
    known = memory.certificates_of(key)
    if known:
        identifiers = [extension(one, x509.SubjectKeyIdentifier) for one in known]
        ours = [
            (one.subject, own.digest if own else key_identifier(key.spki))
            for one, own in zip(known, identifiers, strict=True)
        ]
    else:
        name = ROOT_NAME if key.purpose == "root" else ISSUING_NAME
        generation = generation_of(found.issuer)
        ours = [(ca_subject(name, policy.trust_domain, generation or 1), key_identifier(key.spki))]
    if not any(is_same(found.issuer, name) and found.identifier == own for name, own in ours):
        raise SigningRefused("issuer", "the CRL is not of the CA whose key is to sign it")


def _demand_times(found: ReadList, key: HeldKey, policy: SigningPolicy, now: datetime) -> None:
    early = found.this_update - now
    if not -(_BACK + policy.clock_skew) <= early <= policy.clock_skew + _SECOND:
        raise SigningRefused(
            "clock",
            f"the CRL is of {found.this_update.isoformat()}, and here it is {now.isoformat()}",
            "compare the two machines' clocks; nothing is backdated",
        )
    is_root = key.purpose == "root"
    longest = policy.max_root_crl_duration if is_root else policy.max_crl_duration
    if (
        not timedelta()
        < found.next_update - found.this_update
        <= longest + _BACK + policy.clock_skew
    ):
        raise SigningRefused(
            "crl-life",
            f"the CRL would hold until {found.next_update.isoformat()}, and one of this key for {longest} at most",
            "publish lists more often",
        )


def _demand_entries(found: ReadList, policy: SigningPolicy, now: datetime) -> None:
    for entry in found.entries.values():
        if entry.reason not in GIVEN_REASONS:
            # OpenSSL takes removeFromCRL, in a complete list too, for the word that it is not revoked.
            raise SigningRefused(
                "crl-reason",
                f"{serial_hex(entry.serial)} is listed as {entry.reason}, which our CAs do not say",
                f"give another reason than {Reason.CERTIFICATE_HOLD} or {Reason.REMOVE_FROM_CRL}",
            )
        if entry.revoked_at > now + policy.clock_skew:
            raise SigningRefused(
                "crl-future", f"{serial_hex(entry.serial)} is listed as revoked in the future"
            )
