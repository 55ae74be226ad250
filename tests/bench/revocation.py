"""Revocation by the million: sets, CRLs and OCSP answers, each on one core and in this process."""

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from pki.crl.crl import read_crl
from pki.crl.issue import issue_crl
from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm, MemoryKey
from pki.ocsp.request import OcspRequest
from pki.ocsp.response import judge_answer
from pki.ocsp.sign import Responder, Standing, single_responses
from pki.serial import new_serial
from pki.spiffe import TrustDomain
from pki.svid.revocation_set import GIVEN_REASONS, Revocation, RevocationSet
from tests.bench.tables import Table, Value, median

_NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)
_HELD, _MADE, _READ, _ANSWERS, _NEWS = 1_000_000, 100_000, 200_000, 2_000, 1_000


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    trust_domain = TrustDomain("mesh.local")
    root = asyncio.run(Authority.create_root(_key(), trust_domain, _NOW))
    issuing = asyncio.run(root.create_issuing(_key(), trust_domain, _NOW))
    rows: list[tuple[str, list[float], str]] = []

    def row(what: str, unit: str, figure: Callable[[], float]) -> None:
        say(what)
        rows.append((what, [figure() for _ in range(rounds)], unit))

    say(f"revoking {_HELD:,}")
    told = list(_revocations(issuing.key_id, _READ))
    held = RevocationSet().merged(_revocations(issuing.key_id, _HELD), _NOW)
    serials = [revocation.serial for revocation in held.of(issuing.key_id)][::50]
    row(f"a set of {_HELD:,} in memory", "MB", lambda: _megabytes(held, issuing.key_id))
    row("looking up what is in it", "us", lambda: _finding(held, issuing.key_id, serials, 0))
    row("looking up what is not", "us", lambda: _finding(held, issuing.key_id, serials, 1))
    row("revoking one more", "us", lambda: _growing(held, issuing.key_id))
    row("collecting garbage with it there", "ms", lambda: _timed(gc.collect) * 1e3)
    made = _crl(issuing, told)
    small = told[:_MADE]
    row(f"making a CRL of {_MADE:,}", "ms", lambda: _timed(lambda: _crl(issuing, small)) * 1e3)
    row("its size", "kB", lambda: len(_crl(issuing, small)) / 1e3)
    row(
        f"reading a CRL of {_READ:,}",
        "ms",
        lambda: _timed(lambda: read_crl(made, issuing.certificate, now=_NOW)) * 1e3,
    )
    read = read_crl(made, issuing.certificate, now=_NOW)
    row(
        "a set of what is in it",
        "ms",
        lambda: _timed(lambda: RevocationSet().merged(read, _NOW)) * 1e3,
    )
    key = _key()
    delegate = asyncio.run(issuing.create_responder(key, _NOW))
    by_issuer = Responder(issuing.certificate, issuing.key)
    by_delegate = Responder(issuing.certificate, key, delegate)
    row("OCSP answers, by the issuer", "/s", lambda: _answering(by_issuer))
    row("OCSP answers, by a delegate", "/s", lambda: _answering(by_delegate))
    row("judging a delegate's answer", "us", lambda: _judging(by_delegate, issuing))
    figures: tuple[dict[str, Value], ...] = tuple(
        {"what": what, "median": median(values), "unit": unit} for what, values, unit in rows
    )
    notes = (
        "CPU time; EC P-256 throughout; each CRL entry with a date of its own. An answer is a request decoded,",
        "one certificate looked up, the nonce echoed, a signature made and verified again.",
    )
    return Table("revocation", "what revocation costs", figures, notes)


def _key() -> MemoryKey:
    return MemoryKey.generate(KeyAlgorithm.EC_P256)


def _revocations(issuer: str, count: int) -> Iterator[Revocation]:
    for number in range(count):
        reason = GIVEN_REASONS[number % len(GIVEN_REASONS)]
        yield Revocation(issuer, new_serial(), _NOW - number * _SECOND, reason, _NOW + _HOUR)


def _timed(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def _megabytes(held: RevocationSet, issuer: str) -> float:
    """What its dict and numbers take; the allocator hands out 16 bytes at a time."""
    packed = held._ledger.packed[issuer]
    numbers = sum(-(-sys.getsizeof(n) // 16) * 16 for pair in packed.items() for n in pair)
    return (numbers + sys.getsizeof(packed)) / 1e6


def _finding(held: RevocationSet, issuer: str, serials: list[int], off: int) -> float:
    def find() -> None:
        for serial in serials:
            held.find(issuer, serial + off)

    return _timed(find) / len(serials) * 1e6


def _growing(held: RevocationSet, issuer: str) -> float:
    news = list(_revocations(issuer, _NEWS))
    # Only the newest generation grows without a copy: this one is made anew before the clock starts.
    grown = held.merged(news[:1], _NOW)

    def grow() -> None:
        latest = grown
        for revocation in news[1:]:
            latest = latest.merged([revocation], _NOW)

    return _timed(grow) / (_NEWS - 1) * 1e6


def _crl(issuing: Authority, told: list[Revocation]) -> bytes:
    return asyncio.run(
        issue_crl(issuing, told, 1, this_update=_NOW, next_update=_NOW + 100 * _HOUR)
    )


def _answering(responder: Responder) -> float:
    asked = OcspRequest((responder.identity.cert_id(new_serial()),), bytes(32)).to_der()

    async def answer() -> None:
        for _ in range(_ANSWERS):
            await _answered(responder, asked)

    return _ANSWERS / _timed(lambda: asyncio.run(answer()))


async def _answered(responder: Responder, asked: bytes) -> bytes:
    request = OcspRequest.parse(asked)
    told = single_responses(
        request,
        responder.identity,
        lambda *_: Standing.GOOD,
        this_update=_NOW,
        next_update=_NOW + _HOUR,
    )
    return await responder.respond(told, produced_at=_NOW, nonce=request.nonce)


def _judging(responder: Responder, issuing: Authority) -> float:
    leaf: x509.Certificate = asyncio.run(_leaf(issuing))
    asked = OcspRequest((responder.identity.cert_id(leaf.serial_number),)).to_der()
    answer = asyncio.run(_answered(responder, asked))
    assert not judge_answer(answer, leaf, issuing.certificate, now=_NOW)

    def judge() -> None:
        for _ in range(_ANSWERS):
            judge_answer(answer, leaf, issuing.certificate, now=_NOW)

    return _timed(judge) / _ANSWERS * 1e6


async def _leaf(issuing: Authority) -> x509.Certificate:
    spiffe_id = TrustDomain("mesh.local").member("service", "backend")
    return await issuing.sign(issuing.draft(_key().public_key, spiffe_id, _NOW, _HOUR))
