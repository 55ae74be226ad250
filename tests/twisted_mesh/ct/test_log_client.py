"""Submission to a log at a real socket: a receipt that verifies, or the reason why there is none."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509

from pki.codes import Code
from pki.ct.entry import of_precertificate
from pki.ct.errors import BadSct, LogAway, LogReadOnly, NotAcceptedHere
from pki.ct.log_key import log_signature
from pki.ct.precertificate import with_poison
from pki.ct.receipt import signed_data
from pki.ct.sct import SignedCertificateTimestamp, index_extension, milliseconds
from pki.errors import Malformed, PkiError
from tests.authorities import der, key, mesh, signed_anew
from tests.twisted_mesh.ct.paper_log import NOW, PaperLog, receipt, served
from tests.twisted_mesh.federation.hostile import answer, ok, reactor, redirect
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.ct.errors import LogBusy, LogUnusable
from twisted_mesh.ct.log_client import LogClient
from twisted_mesh.tls.self_signed import SelfSigned

PATH = "ct/v1/add-pre-chain"


def precertificate() -> x509.Certificate:
    tbs = with_poison(mesh().leaf().tbs_certificate_bytes)
    return x509.load_der_x509_certificate(signed_anew(tbs, mesh().issuing.key.private_key))


PRE, ISSUER = precertificate(), mesh().issuing.certificate


@pytest.fixture
def log() -> Iterator[PaperLog]:
    found = PaperLog("submitted")
    with served(found):
        yield found


def sct_of(log: PaperLog) -> SignedCertificateTimestamp:
    return log.add(of_precertificate(PRE, ISSUER), der(PRE))


def submit(log: PaperLog, timeout: float = 5.0) -> SignedCertificateTimestamp:
    own = SelfSigned.of(key("a CA's own"), "mesh-ca", NOW)
    return run(LogClient(log.log, reactor(), own, timeout).add_pre_chain((PRE, ISSUER)))


def refusal(log: PaperLog, said: Any, timeout: float = 5.0) -> PkiError:
    log.wrong[PATH] = said
    with pytest.raises(PkiError) as refused:
        submit(log, timeout)
    assert str(refused.value).isprintable()
    return refused.value


def test_a_receipt_that_verifies_comes_back(log: PaperLog) -> None:
    sct = sct_of(log)
    log.wrong[PATH] = ok(receipt(sct))
    assert submit(log) == sct and sct.leaf_index == 0
    assert log.asked == [PATH]


@pytest.mark.parametrize(
    "changed",
    [
        {"timestamp": 5},
        {"extensions": base64.b64encode(b"\0\0\5\0\0\0\0\7").decode()},
        {"extensions": ""},
        {"id": base64.b64encode(bytes(32)).decode()},
    ],
)
def test_a_receipt_for_something_else_is_none(log: PaperLog, changed: dict[str, Any]) -> None:
    assert isinstance(refusal(log, ok(receipt(sct_of(log), **changed))), BadSct)


@pytest.mark.parametrize(
    "changed",
    [
        {"sct_version": 1},
        {"timestamp": -1},
        {"timestamp": 2**63},
        {"timestamp": "now"},
        {"id": "AAAA"},
        {"id": "?"},
        {"extensions": "AAAA"},
        {"signature": ""},
        {"signature": base64.b64encode(bytes(2000)).decode()},
    ],
)
def test_what_is_no_receipt_is_refused(log: PaperLog, changed: dict[str, Any]) -> None:
    assert isinstance(refusal(log, ok(receipt(sct_of(log), **changed))), LogUnusable)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (answer(400, b'{"code":"malformed","detail":"no chain"}'), NotAcceptedHere, "no chain"),
        (answer(403, b'{"code":"not-accepted-here"}'), NotAcceptedHere, "not say why"),
        (answer(403, b'{"code":"log-read-only","detail":"retired"}'), LogReadOnly, "retired"),
        (answer(403, b"\xff\xfe"), NotAcceptedHere, "403"),
        (answer(404, b'{"error_message":"no such call"}'), NotAcceptedHere, "no such call"),
        (redirect("https://elsewhere/"), NotAcceptedHere, "302"),
        (answer(500, b"\x1b[31m"), LogBusy, "500"),
        (answer(503, b'{"title":"x","detail":"no room"}'), LogBusy, "answers 503: no room"),
        (answer(503, b"no JSON"), LogBusy, "answers 503: no JSON"),
        (ok(b"x" * 20_000), PkiError, "more than"),
        (ok(b"[" * 10_000), LogUnusable, "no log"),
        (ok(b"{}"), LogUnusable, "no log"),
        (b"", LogAway, ""),
    ],
)
def test_why_there_is_none(log: PaperLog, said: bytes, kind: type[PkiError], words: str) -> None:
    found = refusal(log, said)
    assert isinstance(found, kind) and words in str(found)


def test_a_receipt_says_where_its_entry_is_and_nothing_at_length(log: PaperLog) -> None:
    """What a log puts into it stands in each certificate: one that lies would make all of them too long to be sent."""
    entry = of_precertificate(PRE, ISSUER)
    extensions = index_extension(0) + b"\x07" + (9000).to_bytes(2, "big") + bytes(9000)
    stamp = milliseconds(log.at)
    made = asyncio.run(log_signature(signed_data(stamp, entry, extensions), log.key))
    long = SignedCertificateTimestamp(log.log.log_id, stamp, extensions, *made)
    found = refusal(log, ok(receipt(long)))
    assert isinstance(found, BadSct) and "bytes of extensions" in str(found)


def test_a_log_may_say_when_to_come_back(log: PaperLog) -> None:
    found = refusal(log, answer(503, b"full", retry_after="7"))
    assert isinstance(found, LogBusy) and found.retry_after == 7 and found.code == Code.LOG_AWAY
    for said in ("soon", "-1", "9999999999"):
        found = refusal(log, answer(429, b"full", retry_after=said))
        assert isinstance(found, LogBusy) and found.retry_after is None


def test_a_slow_log_is_away(log: PaperLog) -> None:
    assert refusal(log, lambda _: None, 0.2).code == Code.LOG_AWAY


def test_a_log_with_another_tls_key_gets_no_certificate(log: PaperLog) -> None:
    pin = SelfSigned.of(key("another"), "x", NOW).pin
    client = LogClient(evolve(log.log, tls_pins=(pin,)), reactor())
    with pytest.raises(PkiError) as refused:
        run(client.add_pre_chain((PRE, ISSUER)))
    assert refused.value.problems[0].code == Code.WRONG_FINGERPRINT and not log.asked


def test_what_is_no_precertificate_is_not_submitted(log: PaperLog) -> None:
    client = LogClient(log.log, reactor())
    for work in (client.add_pre_chain((mesh().leaf(), ISSUER)), client.add_pre_chain((PRE,))):
        with pytest.raises(Malformed):
            run(work)
    with pytest.raises(Malformed):
        run(client.add_chain((PRE, ISSUER)))
    assert not log.asked


def test_the_roots_of_a_log_are_read(log: PaperLog) -> None:
    client = LogClient(log.log, reactor())
    root = mesh().root.certificate
    texts = [base64.b64encode(der(root)).decode()]
    log.wrong["ct/v1/get-roots"] = ok(json.dumps({"certificates": texts}).encode())
    assert run(client.get_roots()) == [root]
    for wrong in (["AAAA"], ["?"], texts * 1001):
        log.wrong["ct/v1/get-roots"] = ok(json.dumps({"certificates": wrong}).encode())
        with pytest.raises(LogUnusable):
            run(client.get_roots())
