"""All that a CA of ours signs in its life is signed by a signer."""

from datetime import timedelta

import pytest

from pki.audit.log import Checkpoint
from pki.crl.issue import issue_crl
from pki.crl.schedule import RESPONDER_LIFE, Span
from pki.issuing.authority import Authority
from pki.issuing.ca_request import build_ca_request
from pki.issuing.certification_request import read_request
from pki.issuing.csr import load_csr
from pki.issuing.publication import Publication
from pki.issuing.rotation import prove
from pki.keys import KeyAlgorithm
from pki.keys.probe import probe
from pki.ocsp.request import Issuer
from pki.ocsp.sign import Responder, SingleResponse, Standing
from pki.signing.errors import NotSignable
from pki.svid.bundle import TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import BACKEND, DAY, HOUR, MESH, NOW, key
from tests.pki.signing.conftest import Rig, done
from tests.pki.signing.remembered import JudgedKey, Remembered

_GAP = timedelta(seconds=7)


def kinds(*keys: JudgedKey) -> list[str]:
    return [verdict.kind for key in keys for verdict in key.verdicts]


def test_the_cas_of_a_first_start(rig: Rig) -> None:
    assert [v.facts["profile"] for v in rig.root_key.verdicts] == ["root", "issuing"]
    assert rig.memory.certificates["issuing-2"][0].subject == rig.issuing.certificate.subject


@pytest.mark.parametrize("algorithm", [a for a in KeyAlgorithm if not a.kind.is_slow])
@pytest.mark.parametrize("at", [-_GAP, timedelta(), _GAP])
def test_workloads_of_every_key_and_of_clocks_that_differ(
    rig: Rig, algorithm: KeyAlgorithm, at: timedelta
) -> None:
    public_key = key(1, algorithm).public_key
    for lifetime in (timedelta(seconds=1), HOUR, DAY):
        draft = rig.issuing.draft(
            public_key,
            BACKEND,
            NOW + HOUR + at,
            lifetime,
            dns_names=["backend.mesh.local"],
        )
        rig.issuing_key.now = NOW + HOUR
        done(rig.issuing.sign(draft))
    assert kinds(rig.issuing_key) == ["certificate"] * 3
    assert rig.issuing_key.verdicts[0].facts["uri"] == str(BACKEND)


def test_a_workload_that_is_named_otherwise_or_not_at_all(rig: Rig) -> None:
    public_key = key(1).public_key
    rig.issuing.workload = _published(rig)
    for spiffe_id, name in (
        (BACKEND, "shop"),
        (MESH.member("mesh", "ca"), ""),
        (MESH.member("service", "x" * 70), ""),
    ):
        done(
            rig.issuing.sign(rig.issuing.draft(public_key, spiffe_id, NOW, HOUR, common_name=name))
        )
    assert kinds(rig.issuing_key) == ["certificate"] * 3


def _published(rig: Rig):  # type: ignore[no-untyped-def]
    from attrs import evolve

    places = Publication("http://ca.example/crl", "http://ca.example/ocsp", "http://ca.example/ca")
    return evolve(rig.issuing.workload, publication=places)


def test_a_successor_is_proven_and_certified_by_a_second_root(rig: Rig) -> None:
    made = JudgedKey.made("root", key("second root"), rig.policy, rig.memory, NOW)
    second = done(Authority.create_root(made, MESH, NOW, generation=2))
    other = done(second.create_issuing(rig.issuing_key, MESH, NOW))
    for authority, root in ((rig.issuing, rig.root), (other, second)):
        done(prove(authority, TrustBundle(MESH, (root.certificate,)), NOW))
    assert len(rig.memory.certificates["issuing-2"]) == 2


def test_a_responder_and_what_the_ca_itself_answers(rig: Rig) -> None:
    done(rig.issuing.create_responder(key(2), NOW, RESPONDER_LIFE))
    leaf = done(rig.issuing.sign(rig.issuing.draft(key(1).public_key, BACKEND, NOW, HOUR)))
    issuer = Issuer.of(rig.issuing.certificate)
    responder = Responder(rig.issuing.certificate, rig.issuing_key)
    span = Span.starting(NOW, HOUR)
    revoked = Revocation(issuer.key_id, 99, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)
    singles = [
        SingleResponse(issuer.cert_id(serial), said, span.this_update, span.next_update)
        for serial, said in (
            (leaf.serial_number, Standing.GOOD),
            (99, revoked),
            (100, Standing.UNKNOWN),
        )
    ]
    for nonce in (None, b"n" * 16):
        done(responder.respond(singles, produced_at=NOW, nonce=nonce))
    assert kinds(rig.issuing_key) == ["certificate", "certificate", "ocsp", "ocsp"]


def test_lists_that_grow_and_shrink_as_certificates_end(rig: Rig) -> None:
    serials = [
        done(
            rig.issuing.sign(rig.issuing.draft(key(1).public_key, BACKEND, NOW, life))
        ).serial_number
        for life in (HOUR, 2 * HOUR)
    ]
    listed = [
        Revocation(rig.issuing.key_id, serial, NOW, Reason.KEY_COMPROMISE, NOW + 2 * HOUR)
        for serial in (*serials, 4711)
    ]
    for number, hours, revoked in (
        (1, 0, []),
        (2, 0, listed[:1]),
        (4, 0, listed),
        (5, 1.1, listed[1:2]),
    ):
        rig.issuing_key.now = now = NOW + hours * HOUR
        span = Span.starting(now, DAY)
        for _ in range(2):  # the same again is the same
            done(
                issue_crl(
                    rig.issuing,
                    revoked,
                    number,
                    this_update=span.this_update,
                    next_update=span.next_update,
                )
            )
    span = Span.starting(NOW, 365 * DAY)
    done(issue_crl(rig.root, [], 1, this_update=span.this_update, next_update=span.next_update))
    assert [v.effect is not None for v in rig.issuing_key.verdicts[2:]] == [True, False] * 4


def test_the_csr_of_a_ca_whose_root_is_elsewhere(rig: Rig) -> None:
    csr = read_request(load_csr(done(build_ca_request(rig.issuing_key.key, MESH, 3))).der)
    assert rig.issuing_key.judge(csr.info).facts == {"generation": 3}


def test_checkpoints_of_a_log_that_grows(rig: Rig) -> None:
    for size in (1, 1, 5):
        text = Checkpoint("mesh.local/audit", size, bytes([size]) * 32, NOW).text
        rig.audit_key.judge(text.encode())
    assert rig.memory.checkpoints["mesh.local/audit"].size == 5


def test_statements(rig: Rig) -> None:
    from twisted_mesh.ca import saved_state

    rig.issuing_key.judge(saved_state.statement("0" * 64, ""))
    for one in (rig.root_key, rig.issuing_key, rig.audit_key):
        one.judge(probe(NOW.isoformat()))


def test_a_ca_that_the_signer_was_never_shown_is_known_by_its_form() -> None:
    """Its root's key is a file of the CA's, or on a machine of its own."""
    from tests.authorities import mesh

    rig, there = Rig(memory=Remembered()), mesh()
    rig.memory.certificates.clear()
    issuing = done(there.root.create_issuing(rig.issuing_key, MESH, NOW))
    done(issuing.sign(issuing.draft(key(1).public_key, BACKEND, NOW, HOUR)))
    span = Span.starting(NOW, HOUR)
    done(issue_crl(issuing, [], 1, this_update=span.this_update, next_update=span.next_update))


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x00", b"\x00" * 32, b"x" * 32, bytes(range(48))]
)
def test_a_digest_or_anything_else_is_nothing_that_is_signed(rig: Rig, data: bytes) -> None:
    for one in (rig.root_key, rig.issuing_key, rig.audit_key):
        with pytest.raises(NotSignable):
            one.judge(data)
