"""``--crl`` and ``--ocsp``: what they come to, for a manager whose certificate is not there yet."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from pki.errors import Malformed, PkiError
from pki.svid.x509svid import certificates_pem
from tests.authorities import NOW, mesh
from tests.twisted_mesh.identity.test_manager import FakeCa
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.revocation_options import RevocationOptions
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.trust.judge import Judge


def manager() -> CertificateManager:
    clock = Clock()
    contexts = [ContextFactory(Role(serves=True))]
    judge = Judge(lambda: NOW)
    return CertificateManager(FakeCa(clock), judge, contexts, clock, lambda: NOW, RecordingLog())


def watched(sources: RevocationOptions, of: CertificateManager, home: Path) -> Any:
    return sources.watch(of, of.clock, of.log, home / "numbers")


def test_without_options_nobody_else_is_heard(tmp_path: Path) -> None:
    sources, of = RevocationOptions.parse([], [], None, []), manager()
    watched(sources, of, tmp_path)
    assert not of.preparations and not of.judge.freshness.doubts
    assert sources.inquiry(of, of.clock, of.log) is None


def test_a_crl_is_read_before_the_first_certificate_is_used(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificates_pem([mesh().root.certificate]))
    twice = ["one.crl", "http://ca.example/crl", "one.crl"]
    sources, of = RevocationOptions.parse(twice, [str(ca)], None, []), manager()
    assert [str(place) for place in sources.places] == twice[:2]
    watch = watched(sources, of, tmp_path)
    assert of.preparations == [watch.prepare]
    assert of.judge.freshness.doubts == [watch.doubt]
    assert of.judge.freshness.refuses, "before it has been read"
    assert watch.issuers == (mesh().root.certificate,)


def test_a_responder_is_asked_about_peers() -> None:
    sources, of = RevocationOptions.parse([], [], "http://ocsp.example/", [], "grace"), manager()
    inquiry = sources.inquiry(of, of.clock, of.log)
    assert inquiry is not None and not inquiry.fails_closed
    assert inquiry.revoke == of.revoke


@pytest.mark.parametrize(
    "options",
    [
        (["https://ca.example/crl"], [], None, []),
        ([], ["/nowhere/ca.pem"], None, []),
        ([], [], "aia", []),
        ([], [], "ftp://ocsp.example/", []),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(options: Any) -> None:
    with pytest.raises(PkiError):
        RevocationOptions.parse(*options)
    with pytest.raises(Malformed):
        RevocationOptions.parse([""], [], None, [])
