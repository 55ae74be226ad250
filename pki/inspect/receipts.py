"""Receipts of logs (SCTs) inside certificates, verified by a list of logs that are known."""

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve
from cryptography import x509

from pki.ct.log_list import LogList
from pki.ct.receipt import judge_receipts
from pki.ct.sct import SignedCertificateTimestamp, scts_of
from pki.errors import HOSTILE_INPUT, PkiError, printable
from pki.inspect.description import Description, ReceiptFacts
from pki.svid.certificate import names_match
from pki.svid.path import issued_by

_MOST_ISSUERS = 8


def with_receipts(
    found: Sequence[tuple[bytes, Description]],
    beside: Sequence[x509.Certificate],
    logs: LogList,
    now: datetime,
) -> tuple[Description, ...]:
    """The descriptions of certificates, each with its receipts; of what is none, and has none, as they were.

    ``found`` has the DER of each. A certificate's issuer is looked for among them and those ``beside``: what a receipt
    is for depends on the issuer's key.
    """
    loaded = [_loaded(der) for der, _ in found]
    around = [*(cert for cert in loaded if cert is not None), *beside]
    return tuple(
        item if cert is None else _receipted(item, cert, around, logs, now)
        for cert, (_, item) in zip(loaded, found, strict=True)
    )


def _receipted(
    item: Description,
    cert: x509.Certificate,
    around: Sequence[x509.Certificate],
    logs: LogList,
    now: datetime,
) -> Description:
    try:
        scts = scts_of(cert)
        if not scts:
            return item
        issuer = _issuer_of(cert, around)
        if issuer is not None:
            judged = judge_receipts(cert, issuer, logs, now)
            told = (_told(one.sct, logs, one.counts, one.objection) for one in judged)
            return evolve(item, receipts=tuple(told))
    except PkiError as error:
        return evolve(item, remarks=(*item.remarks, str(error)))
    why = "not verified: give the certificate of its issuer as well"
    return evolve(item, receipts=tuple(_told(sct, logs, None, why) for sct in scts))


def _issuer_of(
    cert: x509.Certificate, around: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    named = [other for other in dict.fromkeys(around) if names_match(cert, other)]
    return next((other for other in named[:_MOST_ISSUERS] if issued_by(cert, other)), None)


def _told(
    sct: SignedCertificateTimestamp, logs: LogList, counts: bool | None, why: str
) -> ReceiptFacts:
    log = logs.log_of(sct.log_id)
    name = printable(log.description, 80) if log else ""
    return ReceiptFacts(name, sct.log_id.hex(), sct.at, sct.leaf_index, counts, why)


def _loaded(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except HOSTILE_INPUT:
        return None
