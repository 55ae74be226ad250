"""Statements: what a CRL or an OCSP response says about certificates, as facts for people. No verdict.

Every text is printable. Facts have names as in JSON, ``this_update``, and any number of values each.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509 import ocsp

from pki.errors import HOSTILE_INPUT, Malformed
from pki.inspect.extensions import hex_pairs, name_text
from pki.serial import serial_pairs
from pki.validity import rfc3339

Facts = tuple[tuple[str, tuple[str, ...]], ...]

_SUCCESSFUL = ocsp.OCSPResponseStatus.SUCCESSFUL


def crl_facts(der: bytes) -> Facts:
    """Raises :class:`Malformed`."""
    try:
        return tuple(_crl_facts(x509.load_der_x509_crl(der), der))
    except HOSTILE_INPUT:
        raise Malformed("a CRL in it cannot be decoded: it is damaged or cut short") from None


def answer_facts(der: bytes) -> Facts:
    """Raises :class:`Malformed`."""
    try:
        return tuple(_answer_facts(ocsp.load_der_ocsp_response(der), der))
    except HOSTILE_INPUT:
        raise Malformed("the OCSP response cannot be decoded: it is damaged or cut short") from None


def _crl_facts(
    crl: x509.CertificateRevocationList, der: bytes
) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "issuer", (name_text(crl.issuer) or "(empty)",)
    for found in crl.extensions:
        if isinstance(found.value, x509.CRLNumber):
            yield "number", (str(found.value.crl_number),)
    yield "this_update", (rfc3339(crl.last_update_utc),)
    yield "next_update", (_time(crl.next_update_utc),)
    yield "signature", (_signed_over(crl.signature_hash_algorithm, crl.signature_algorithm_oid),)
    yield "entries", (str(len(crl)),)
    if len(crl):
        yield "revoked", tuple(map(_entry, crl))
    yield "extensions", tuple(_kind(found) for found in crl.extensions) or ("none",)
    yield "sha256", (hex_pairs(hashlib.sha256(der).digest()),)


def _entry(entry: x509.RevokedCertificate) -> str:
    kinds = [
        found.value.reason.value if isinstance(found.value, x509.CRLReason) else f"{_kind(found)}"
        for found in entry.extensions
    ]
    why = f" ({', '.join(kinds)})" if kinds else ""
    return f"{serial_pairs(entry.serial_number)} since {rfc3339(entry.revocation_date_utc)}{why}"


def _answer_facts(answer: ocsp.OCSPResponse, der: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "status", (answer.response_status.name.lower().replace("_", " "),)
    if answer.response_status is _SUCCESSFUL:
        if answer.responder_key_hash is not None:
            yield "responder", (f"key {hex_pairs(answer.responder_key_hash)}",)
        if answer.responder_name is not None:
            yield "responder", (name_text(answer.responder_name) or "(empty)",)
        yield "produced_at", (rfc3339(answer.produced_at_utc),)
        yield "answers", tuple(map(_single, answer.responses))
        for found in answer.extensions:
            if isinstance(found.value, x509.OCSPNonce):
                yield "nonce", (hex_pairs(found.value.nonce),)
        signed = answer.signature_hash_algorithm, answer.signature_algorithm_oid
        yield "signature", (_signed_over(*signed),)
        if answer.certificates:
            yield "certificates", tuple(name_text(c.subject) for c in answer.certificates)
    yield "sha256", (hex_pairs(hashlib.sha256(der).digest()),)


def _single(single: ocsp.OCSPSingleResponse) -> str:
    said = single.certificate_status.name.lower()
    if single.revocation_time_utc is not None:
        reason = single.revocation_reason
        said += f" since {rfc3339(single.revocation_time_utc)}"
        said += f" ({reason.value})" if reason else ""
    times = f"from {rfc3339(single.this_update_utc)} until {_time(single.next_update_utc)}"
    return f"{serial_pairs(single.serial_number)} is {said}, {times}"


def _time(moment: datetime | None) -> str:
    return rfc3339(moment) if moment else "(not said)"


def _signed_over(digest: HashAlgorithm | None, oid: x509.ObjectIdentifier) -> str:
    return f"{oid.dotted_string} over {digest.name.upper()}" if digest else oid.dotted_string


def _kind(found: x509.Extension[x509.ExtensionType]) -> str:
    name = type(found.value).__name__
    if isinstance(found.value, x509.UnrecognizedExtension):
        name = found.oid.dotted_string
    return f"{name} (critical)" if found.critical else name
