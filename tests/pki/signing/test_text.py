"""Texts: a log that shrinks or forks, a statement that is something else, a root that is somebody else's."""

import json
from datetime import timedelta

import pytest

from pki.audit.log import Checkpoint
from pki.keys import spki_der
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.policy import SigningPolicy
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import certificates_pem
from tests.authorities import HOUR, MESH, NOW, mesh
from tests.pki.signing.conftest import Rig

LOG = "mesh.local/audit"


def checkpoint(
    size: int, root: int = 1, *, origin: str = LOG, at: timedelta = timedelta()
) -> bytes:
    return Checkpoint(origin, size, bytes([root]) * 32, NOW + at).text.encode()


def refused(rig: Rig, data: bytes, rule: str) -> None:
    with pytest.raises(SigningRefused) as caught:
        rig.audit_key.judge(data)
    assert caught.value.rule == rule, str(caught.value)


def test_a_log_neither_shrinks_nor_forks(rig: Rig) -> None:
    rig.audit_key.judge(checkpoint(5))
    rig.audit_key.judge(checkpoint(5))
    refused(rig, checkpoint(4), "log-shrinks")
    refused(rig, checkpoint(5, 2), "log-forks")
    rig.audit_key.judge(checkpoint(6, 2))
    refused(rig, checkpoint(5), "log-shrinks")


def test_a_log_key_signs_for_one_log_and_for_now(rig: Rig) -> None:
    rig.audit_key.judge(checkpoint(5))
    refused(rig, checkpoint(9, origin="other.example/audit"), "log-origin")
    refused(rig, checkpoint(9, at=HOUR), "clock")
    refused(rig, checkpoint(9, at=-HOUR), "clock")


@pytest.mark.parametrize(
    "text",
    [
        "mesh.local/audit\n5\n",
        checkpoint(5).decode() + "more\n",
        checkpoint(5).decode().replace("\n5\n", "\n05\n"),
        "twisted-mesh backup 1\n" + "0" * 64 + "\n\n",
        "twisted-mesh: does this key sign? " + "x" * 101,
        "twisted-mesh: does this key sign? a\nb",
        "twisted-mesh: does this key sign?",
    ],
)
def test_what_is_no_checkpoint(rig: Rig, text: str) -> None:
    with pytest.raises(NotSignable):
        rig.audit_key.judge(text.encode())


def test_no_checkpoint_by_another_key(rig: Rig) -> None:
    for one in (rig.root_key, rig.issuing_key):
        with pytest.raises(NotSignable):
            one.judge(checkpoint(5))


@pytest.mark.parametrize(
    "text",
    [
        "twisted-mesh backup 1\n" + "0" * 63 + "\n\n",
        "twisted-mesh backup 1\n" + "0" * 64 + "\n\nmore",
        "twisted-mesh backup 1\n" + "0" * 64 + "\nmesh.local/audit+00000000+AAAA\n",
        "twisted-mesh backup 2\n" + "0" * 64 + "\n\n",
        "twisted-mesh roots 1\n{}",
        'twisted-mesh roots 1\n{"old": "no certificate", "new": null}',
        "twisted-mesh roots 1\n" + "[" * 100_000,
        "twisted-mesh roots 1\n" + " " * 1024 * 1024,
        "twisted-mesh, possession of an X.509 identity, version 1\0",
        " " * 64 + "TLS 1.3, server CertificateVerify\0" + "h" * 32,
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9tZXNoLmxvY2FsL2EifQ",
    ],
)
def test_what_is_no_statement(rig: Rig, text: str) -> None:
    """What TLS, JWTs and proofs of possession have signed among them: an issuing CA's key is none of theirs."""
    with pytest.raises(NotSignable):
        rig.issuing_key.judge(text.encode())


def test_a_root_says_nothing_about_backups(rig: Rig) -> None:
    for text in ("twisted-mesh backup 1\n" + "0" * 64 + "\n\n", "twisted-mesh roots 1\n{}"):
        with pytest.raises(SigningRefused) as caught:
            rig.root_key.judge(text.encode())
        assert caught.value.rule == "purpose"


def document(*roots: object) -> bytes:
    pems = [certificates_pem([root]).decode() for root in roots]  # type: ignore[list-item]
    said = {"format": 1, "old": pems[0], "new": pems[1] if len(pems) > 1 else None}
    return b"twisted-mesh roots 1\n" + json.dumps(said).encode()


def test_no_document_of_the_roots_with_the_thiefs_root(rig: Rig) -> None:
    """A CA that is cleaned up and started again believes that document."""
    thief, own = mesh().root.certificate, rig.root.certificate
    rig.issuing_key.judge(document(own))
    for roots in ((thief,), (own, thief), (thief, own)):
        with pytest.raises(SigningRefused) as caught:
            rig.issuing_key.judge(document(*roots))
        assert caught.value.rule == "roots"


def test_roots_that_are_elsewhere_are_named_by_the_policy(rig: Rig) -> None:
    offline = mesh().root.certificate
    pin = SpkiHash.of_spki(spki_der(offline.public_key()))
    named = Rig(SigningPolicy(MESH, roots=frozenset({pin})))
    named.issuing_key.judge(document(offline))
    with pytest.raises(SigningRefused):
        rig.issuing_key.judge(document(offline))


def test_a_root_is_one_certificate_as_those_read_it_who_restore_a_ca(rig: Rig) -> None:
    """Of a second certificate one reader sees nothing, and the other nothing of the first."""
    own, thief = (
        certificates_pem([one]).decode() for one in (rig.root.certificate, mesh().root.certificate)
    )
    for old in (own + thief, own + thief.replace(" ", "\t"), "\xa0" + own):
        said = json.dumps({"format": 1, "old": old, "new": None}).encode()
        with pytest.raises(NotSignable):
            rig.issuing_key.judge(b"twisted-mesh roots 1\n" + said)
