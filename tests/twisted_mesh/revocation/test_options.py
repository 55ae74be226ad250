"""``--crl`` and ``--ocsp``: what they come to, for an endpoint whose certificate is not there yet."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pki.errors import Malformed, PkiError
from pki.svid.x509svid import X509Svid, certificates_pem
from tests.authorities import NOW, key, mesh
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.interfaces import Identity
from twisted_mesh.revocation.crl_watch import CrlWatch
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TrustStore


def store() -> TrustStore:
    return TrustStore(
        Judge(lambda: NOW), ConnectionRegistry(), Clock(), lambda: NOW, RecordingLog()
    )


def watched(options: RevocationOptions, trust: TrustStore, home: Path) -> CrlWatch:
    return options.watch(trust, trust.clock, trust.log, home / "numbers")  # type: ignore[arg-type]


def test_without_options_nobody_else_is_heard(tmp_path: Path) -> None:
    options, trust = RevocationOptions.parse([], [], None, []), store()
    watch = watched(options, trust, tmp_path)
    assert not trust.freshness.doubts
    svid = X509Svid.assemble((mesh().leaf(), *mesh().issuing.intermediates), key(9))
    identity = Identity(svid, mesh().bundles, NOW)
    assert Deferred.fromCoroutine(watch.prepare(identity)).called, "nobody waits for it"
    assert not trust.clock.getDelayedCalls()  # type: ignore[attr-defined]
    assert options.checker(trust, trust.clock, trust.log) is None  # type: ignore[arg-type]


def test_a_crl_is_read_before_the_first_certificate_is_used(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificates_pem([mesh().root.certificate]))
    twice = ["one.crl", "http://ca.example/crl", "one.crl"]
    options, trust = RevocationOptions.parse(twice, [str(ca)], None, []), store()
    assert [str(place) for place in options.crls] == twice[:2]
    watch = watched(options, trust, tmp_path)
    assert trust.freshness.doubts == [watch.doubt]
    assert trust.freshness.refuses, "before it has been read"
    assert watch.issuers == (mesh().root.certificate,)


def test_a_responder_is_asked_about_peers() -> None:
    options, trust = RevocationOptions.parse([], [], "http://ocsp.example/", [], "grace"), store()
    checker = options.checker(trust, trust.clock, trust.log)  # type: ignore[arg-type]
    assert checker is not None and not checker.fails_closed
    assert checker.revoke == trust.revoked


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
