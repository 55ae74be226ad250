"""What an offline root signs: the certificate of an issuing CA, and a CRL. First it is planned, and shown; then done.

Each signature is in the log before it is made. Interrupted, the same command again ends where it should: a CSR whose
certificate was kept is answered with that, and one whose certificate was not is written off and made anew.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from attrs import frozen
from cryptography import x509

from pki.audit.log import Entry
from pki.audit.root_acts import Certified, crl_entry, issue_entry, revoke_entry
from pki.codes import Code
from pki.crl.issue import issue_crl
from pki.crl.schedule import Span
from pki.errors import PkiError, Problem, Refused, printable
from pki.issuing.ca_request import CaRequest
from pki.issuing.draft import Draft
from pki.issuing.profile import ISSUING
from pki.keys import spki_der
from pki.serial import serial_hex, serial_pairs
from pki.svid.path import issued_by
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import certificates_pem, load_certificates
from pki.validity import rfc3339
from twisted_mesh.offline.log import actor
from twisted_mesh.offline.root import OfflineRoot
from twisted_mesh.state.directory import read_file, sync_directory, write_whole

_LEAST = timedelta(days=1)
_MILLISECONDS = 1000


@frozen(eq=False)
class Plan:
    """What is about to be done."""

    request: CaRequest | None
    """Of a CSR; without one only a CRL is made."""
    draft: Draft | None
    """The certificate to be; None where it was made before, or without a CSR."""
    again: x509.Certificate | None
    """The one that was made of the same CSR before."""
    unfinished: tuple[Certified, ...]
    """Of the same CSR, begun and never kept."""
    revoking: tuple[Revocation, ...]
    crl_until: datetime
    """The CRL's next update."""


@frozen(eq=False)
class Signed:
    """What was made: files for the CA's machine."""

    certificate: x509.Certificate | None
    generation: int
    crl: bytes
    number: int
    crl_until: datetime


@frozen
class Wishes:
    """What the person at the keyboard has asked for."""

    csr: bytes | None
    life: timedelta = ISSUING.lifetime
    revoke: Sequence[str] = ()
    """Key ids of issuing CAs, serials, or files with certificates."""
    reason: Reason = Reason.UNSPECIFIED
    crl_life: timedelta | None = None
    """None: until the last certificate of an issuing CA ends."""


def plan(root: OfflineRoot, wishes: Wishes) -> Plan:
    """Decide all of it, and sign nothing. Raises :class:`Malformed`, and :class:`Refused` with every reason."""
    problems: list[Problem] = []
    now, request, draft, again = root.now(), None, None, None
    unfinished: tuple[Certified, ...] = ()
    if now > root.authority.validity.not_after:
        problems.append(
            Problem(
                Code.ISSUER_EXPIRED,
                f"this root has ended ({rfc3339(root.authority.validity.not_after)}), and nothing that it signs is "
                "believed",
                "compare this machine's clock; make another root, and rotate to it",
                subject="root",
            )
        )
    revoking = _revocations(root, wishes, problems)
    if wishes.csr is not None:
        forbidden = {spki_der(root.authority.certificate.public_key())}
        try:
            request = CaRequest.parse(wishes.csr, root.trust_domain, forbidden)
            again, unfinished = _before(root, request, revoking, problems)
        except Refused as error:
            problems += error.problems
    if request is not None and again is None and not problems:
        try:
            draft = root.authority.draft_issuing(
                request.public_key, root.trust_domain, now, request.generation, wishes.life
            )
        except PkiError as error:
            problems += error.problems
    if problems:
        raise Refused(problems)
    until = _crl_until(root, wishes, draft, revoking)
    return Plan(request, draft, again, unfinished, revoking, until)


async def carry_out(root: OfflineRoot, planned: Plan) -> Signed:
    """Do it: each signature in the log first. Raises :class:`StateError` and what signing raises."""
    at, who, log = root.now(), actor(), root.log
    written_off = [
        revoke_entry(
            at,
            who,
            Revocation(root.acts.root, begun.serial, at, Reason.UNSPECIFIED, begun.expires_at),
            unfinished=True,
        )
        for begun in planned.unfinished
    ]
    acts = [*written_off, *(revoke_entry(at, who, revoked) for revoked in planned.revoking)]
    certificate = planned.again
    if planned.request is not None and planned.draft is not None:
        acts.append(issue_entry(at, who, planned.request, planned.draft, root.acts.root))
        await _record(root, acts)
        certificate = await root.authority.sign(planned.draft)
        root.kept.mkdir(mode=0o700, exist_ok=True)
        sync_directory(root.kept.parent)
        write_whole(_kept(root, planned.draft.serial), certificates_pem([certificate]), 0o644)
    elif acts:
        await _record(root, acts)
    number = max(root.acts.crl_number + 1, int(at.timestamp() * _MILLISECONDS))
    span = Span.until(at, planned.crl_until)
    told = tuple(root.acts.revoked.values())
    entry = crl_entry(
        at, who, root.acts.root, number, next_update=span.next_update, entries=len(told)
    )
    await log.record(entry)
    root.acts.take(entry)
    crl = await issue_crl(
        root.authority,
        told,
        number,
        this_update=span.this_update,
        next_update=span.next_update,
    )
    write_whole(root.state.ca / "root.crl", crl, 0o644)
    generation = planned.request.generation if planned.request is not None else 0
    return Signed(certificate, generation, crl, number, span.next_update)


def deliver(root: OfflineRoot, signed: Signed, out: Path) -> tuple[Path, ...]:
    """Write what the CA needs into a directory; the files. Raises :class:`StateError`."""
    out.mkdir(parents=True, exist_ok=True)
    files = {
        out / "root.crt": certificates_pem([root.authority.certificate]),
        out / "root.crl": signed.crl,
    }
    if signed.certificate is not None:
        files[out / f"issuing-{signed.generation}.crt"] = certificates_pem([signed.certificate])
    for path, data in files.items():
        write_whole(path, data, 0o644)
    return tuple(sorted(files))


async def _record(root: OfflineRoot, acts: Sequence[Entry]) -> None:
    await root.log.record(*acts)
    for entry in acts:
        root.acts.take(entry)


def _before(
    root: OfflineRoot,
    request: CaRequest,
    revoking: Sequence[Revocation],
    problems: list[Problem],
) -> tuple[x509.Certificate | None, tuple[Certified, ...]]:
    """What this root has made for that key: the certificate of the same CSR, and what was begun and never kept."""
    unfinished = []
    if root.acts.was_revoked(request.key_id):
        problems.append(
            _refused(
                f"this root has revoked a certificate of the key {request.pin}",
                "have the CA make another key: mesh-ctl ca root csr --new-key",
            )
        )
    for known in root.acts.of_key(request.key_id):
        if known.serial in {revoked.serial for revoked in revoking}:
            problems.append(
                _refused("the CSR is of a CA that is to be revoked", "do one after the other")
            )
        if known.csr == request.fingerprint:
            kept = _recalled(root, known, request)
            if kept is not None:
                return kept, ()
            unfinished.append(known)
            continue
        problems.append(
            _refused(
                f"this root has certified the key {request.pin} before, with serial {serial_pairs(known.serial)} until "
                f"{rfc3339(known.expires_at)}, by another CSR",
                f"bring {_kept(root, known.serial)} to the CA, or have it make another key: mesh-ctl ca root csr "
                "--new-key",
            )
        )
    return None, tuple(unfinished)


def _recalled(root: OfflineRoot, known: Certified, request: CaRequest) -> x509.Certificate | None:
    """The certificate as it was kept; None where its signature was never finished. Raises what reading raises."""
    path = _kept(root, known.serial)
    if not path.exists():
        return None
    (found, *_) = load_certificates(read_file(path, "the certificate"), str(path))
    if found.serial_number != known.serial or spki_der(found.public_key()) != request.spki:
        raise Refused(
            [_refused(f"{path} is not what was signed", "put the directory back from a copy")]
        )
    return found


def _kept(root: OfflineRoot, serial: int) -> Path:
    return root.kept / f"{serial_hex(serial)}.crt"


def _revocations(
    root: OfflineRoot, wishes: Wishes, problems: list[Problem]
) -> tuple[Revocation, ...]:
    found: dict[int, Revocation] = {}
    at = root.now().replace(microsecond=0)
    for text in wishes.revoke:
        named = _named(root, text)
        if not named:
            problems.append(
                Problem(
                    Code.NOT_FOUND,
                    f"this root has certified nothing that {printable(text, 200)} names",
                    "name the key id or serial of an issuing CA, as mesh-ctl ca show has them, or the file with its "
                    "certificate",
                    subject="--revoke",
                )
            )
        for serial, expires_at in named.items():
            if serial not in root.acts.revoked:
                found[serial] = Revocation(root.acts.root, serial, at, wishes.reason, expires_at)
    return tuple(found.values())


def _named(root: OfflineRoot, text: str) -> dict[int, datetime]:
    """Serials and ends of what is meant: of the record, or in a file with what this root's key has signed."""
    path, known = Path(text), root.acts.certified.values()
    if not path.is_file():
        digits = text.lower().replace(":", "")
        return {
            each.serial: each.expires_at
            for each in known
            if digits in (each.key_id, serial_hex(each.serial))
        }
    # Also what the CA has certified with the root's key before that was taken away.
    return {
        cert.serial_number: cert.not_valid_after_utc
        for cert in load_certificates(read_file(path, "the certificate"), text)
        if cert != root.authority.certificate and issued_by(cert, root.authority.certificate)
    }


def _crl_until(
    root: OfflineRoot, wishes: Wishes, draft: Draft | None, revoking: Sequence[Revocation]
) -> datetime:
    """Until the last issuing CA ends: by then the root is needed anyway; never beyond the root's own end."""
    now, end = root.now(), root.authority.validity.not_after
    if wishes.crl_life is not None:
        return min(now + wishes.crl_life, end)
    gone = {revoked.serial for revoked in revoking}
    good = [
        known.expires_at
        for known in root.acts.certified.values()
        if known.serial not in root.acts.revoked.keys() | gone
    ]
    last = max([*good, *([draft.not_after] if draft else [])], default=now)
    return min(max(last, now + (_LEAST if good or draft else ISSUING.lifetime)), end)


def _refused(detail: str, remedy: str) -> Problem:
    return Problem(Code.ALREADY_CERTIFIED, detail, remedy, "", "csr")
