"""Receipts signed and judged: what a log signs (RFC 6962 section 3.2), and how many good ones a peer must have."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from attrs import evolve, frozen
from cryptography import x509

from pki.codes import Code
from pki.ct.entry import SignedEntry, receipts_of
from pki.ct.errors import BadSct
from pki.ct.log_key import LogKey, log_signature
from pki.ct.log_list import Log, LogList
from pki.ct.sct import (
    SignedCertificateTimestamp,
    index_extension,
    moment,
    scts_of,
)
from pki.ct.wire import vector
from pki.errors import PkiError, Problem
from pki.keys import SigningKey
from pki.svid.x509svid import subject_of
from pki.validity import rfc3339, spoken_duration

#: So far ahead of ours may a log's clock be.
FUTURE = timedelta(minutes=5)


def signed_data(timestamp: int, entry: SignedEntry, extensions: bytes) -> bytes:
    """What a receipt's signature is over: version 1, certificate_timestamp, and all of it."""
    return b"\0\0" + timestamp.to_bytes(8, "big") + entry.to_bytes() + vector(2, extensions)


async def sign_sct(
    entry: SignedEntry, timestamp: int, leaf_index: int, key: SigningKey
) -> SignedCertificateTimestamp:
    """A log's receipt for an entry at its place. Raises as :func:`pki.ct.log_key.log_signature`."""
    extensions = index_extension(leaf_index)
    made = await log_signature(signed_data(timestamp, entry, extensions), key)
    log_id = LogKey.of(key.public_key).log_id
    return SignedCertificateTimestamp(log_id, timestamp, extensions, *made)


def verify_sct(sct: SignedCertificateTimestamp, entry: SignedEntry, key: LogKey) -> None:
    """Raises :class:`BadSct` unless the log of ``key`` has signed this receipt, for that entry."""
    if sct.log_id != key.log_id:
        raise BadSct("the receipt (SCT) is another log's")
    algorithms = sct.hash_algorithm, sct.signature_algorithm
    key.verify(sct.signature, algorithms, signed_data(sct.timestamp, entry, sct.extensions))


@frozen
class Receipt:
    """One receipt of a certificate, judged."""

    sct: SignedCertificateTimestamp
    log: Log | None
    """None for one that is not known here."""
    objection: str
    """Why it does not count, in words; empty where it does."""

    @property
    def counts(self) -> bool:
        """Whether it is good, and of a log that counts."""
        return not self.objection


def judge_receipts(
    cert: x509.Certificate, issuer: x509.Certificate, logs: LogList, now: datetime
) -> tuple[Receipt, ...]:
    """Each receipt inside ``cert``, which ``issuer`` has signed. Raises :class:`BadSct` where they cannot be read.

    For each log one signature is verified: how many a stranger puts in costs nothing.
    """
    scts, entry = receipts_of(cert, issuer)
    seen: set[bytes] = set()
    return tuple(_judged(sct, entry, logs, now, seen) for sct in scts)


def _judged(
    sct: SignedCertificateTimestamp,
    entry: SignedEntry,
    logs: LogList,
    now: datetime,
    seen: set[bytes],
) -> Receipt:
    log = logs.log_of(sct.log_id)
    if log is None:
        return Receipt(sct, None, "that log is not known here, or does not count any more")
    if sct.log_id in seen:
        return Receipt(sct, log, "that log has another in the same certificate")
    seen.add(sct.log_id)
    if sct.at > now + FUTURE:
        ahead = spoken_duration(sct.at - now)
        return Receipt(sct, log, f"it is from the future: {rfc3339(sct.at)}, in {ahead}")
    if reason := log.objection_to(sct.timestamp):
        return Receipt(sct, log, reason)
    if log.monitoring_url and sct.leaf_index is None:
        # Nobody could look whether it is there: who holds the log's key would sign what the log does not have.
        return Receipt(
            sct, log, "it does not say where its entry is, as those of that log do (static-ct-api)"
        )
    try:
        verify_sct(sct, entry, log.key)
    except BadSct as error:
        return Receipt(sct, log, str(error))
    return Receipt(sct, log, "")


@frozen
class SctDemand:
    """How many receipts a peer's certificate must have, each of another log of a list; 0 demands nothing."""

    required: int
    logs: LogList

    def __bool__(self) -> bool:
        return self.required > 0

    def narrowed(self, withdrawn: Sequence[bytes] | frozenset[bytes]) -> "SctDemand":
        """Without these logs, by their IDs; itself where none of them was known. There is no way to add one."""
        logs = self.logs.without(withdrawn)
        return self if logs is self.logs else evolve(self, logs=logs)

    def problems(self, path: Sequence[x509.Certificate], now: datetime) -> tuple[Problem, ...]:
        """Why the leaf of a path, leaf first, does not count: one ``no-sct``, or nothing.

        ``path`` was judged before: its second certificate has signed the first.
        """
        return tuple(self._problems(path, now)) if self.required > 0 else ()

    def turns(self, leaf: x509.Certificate) -> tuple[datetime, ...]:
        """Moments at which :meth:`problems` may say something else of it: until then a receipt is from the future."""
        try:
            return tuple(sct.at - FUTURE for sct in scts_of(leaf)) if self.required > 0 else ()
        except BadSct:
            return ()

    def _problems(self, path: Sequence[x509.Certificate], now: datetime) -> Iterator[Problem]:
        leaf = path[0]
        try:
            if len(path) < 2:
                raise BadSct("nobody stands above it, so no log has a receipt (SCT) for it")
            receipts = judge_receipts(leaf, path[1], self.logs, now)
        except PkiError as error:
            yield self._problem(leaf, f"it counts as one without receipts: {error}")
            return
        good = sum(receipt.counts for receipt in receipts)
        if good >= self.required:
            return
        told = [
            f"that of {_named(receipt)} at {rfc3339(moment(receipt.sct.timestamp))}: {receipt.objection}"
            for receipt in receipts
            if receipt.objection
        ]
        found = f"it has {good} that count, of {len(receipts)}" if receipts else "it has none"
        yield self._problem(leaf, "; ".join((found, *told)))

    def _problem(self, leaf: x509.Certificate, found: str) -> Problem:
        if self.required == 1:
            wanted = "a receipt (SCT) of a log is demanded"
        else:
            wanted = f"receipts (SCTs) of {self.required} logs are demanded"
        known = ", ".join(log.description for log in self.logs.logs[:8]) or "none"
        return Problem(
            Code.NO_SCT,
            f"{wanted}, and {found}; known here: {known}",
            Code.NO_SCT.remedy,
            "--require-sct",
            subject_of(leaf),
        )


def _named(receipt: Receipt) -> str:
    return receipt.log.description if receipt.log else f"log {receipt.sct.log_id.hex()[:16]}…"
