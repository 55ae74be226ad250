"""From a URL, a fingerprint and a token to an identity, and through a restart: over real TLS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field

from pki.keys import KeyAlgorithm
from pki.policy.join_token import JoinToken
from pki.svid.pin import Fingerprint
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, HOUR, MESH, OTHER
from tests.twisted_mesh.fake_ca import HUNG_UP, FakeCa, reach, refused
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.tls.wires import TODAY, good_svid, home
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.identity import saved_svid as kept_identity_module
from twisted_mesh.identity.bootstrap import ca_client, saved_svid
from twisted_mesh.identity.sources import CaSource
from twisted_mesh.tls.alerts import PeerRefused, RefusedByPeer

P256 = KeyAlgorithm.EC_P256
TOKEN = JoinToken.generate()
FINGERPRINT = str(Fingerprint.of(home().root.certificate))


@define(eq=False)
class Machine:
    """Another machine, which has nothing but what was copied to it."""

    ca: FakeCa
    state: Path
    log: RecordingLog = field(factory=RecordingLog)

    def client(self, fingerprint: str = FINGERPRINT) -> CaClient:
        return ca_client(
            self.ca.reactor, "https://ca:8443", None, self.state, MESH, ca_fingerprint=fingerprint
        )

    def start(self, token: JoinToken | None = TOKEN, fingerprint: str = FINGERPRINT) -> CaSource:
        """One life of an endpoint."""
        client = self.client(fingerprint)
        kept = saved_svid(client, self.state, BACKEND)
        source = CaSource(client, BACKEND, lambda: TODAY, self.log, token=token, kept=kept)
        source.recall()
        return source

    def joins(self, source: CaSource) -> X509Svid:
        svid: X509Svid = self.ca.until_done(source.obtain(P256)).svid
        return svid

    @property
    def kept(self) -> list[Path]:
        return sorted(self.state.glob("identity/*/svid*.pem"))

    def revoke(self, svid: X509Svid) -> None:
        """The CA's port refuses it from now on."""
        revocation = Revocation(
            home().issuing.key_id,
            svid.leaf.serial_number,
            TODAY,
            Reason.KEY_COMPROMISE,
            TODAY + HOUR,
        )
        trust = self.ca.end.judge.trust
        revoked = trust.revocations.merged([revocation], TODAY)
        self.ca.end.judge.trust = evolve(trust, revocations=revoked)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    ca, log = FakeCa(), RecordingLog()
    reach(monkeypatch, ca)
    monkeypatch.setattr(kept_identity_module, "_log", log)
    machine = Machine(ca, tmp_path / "state", log)
    yield machine
    assert TOKEN.text not in str(log.events) + log.all_text()


def test_a_token_and_a_fingerprint_are_all_that_a_new_machine_needs(machine: Machine) -> None:
    source = machine.start()
    svid = machine.joins(source)
    assert svid.spiffe_id == BACKEND
    first, *_ = asked = machine.ca.asked
    assert [a.line for a in asked] == ["POST /api/v1/sign", "GET /api/v1/bundle?keys=all"]
    assert first.body["token"] == TOKEN.text
    assert [a.caller for a in asked] == ["", ""]
    assert len(machine.ca.connections) == len(asked), "one handshake each, the first one too"
    assert source.token is None


def test_what_was_learnt_in_the_first_handshake_is_believed_in_the_next(machine: Machine) -> None:
    source = machine.start()
    security = source.client.security
    assert security is not None
    before = security.contexts.current()
    assert security.judge.pin is not None
    machine.joins(source)
    assert security.judge.pin is None
    assert security.judge.trust.bundles.all_roots == [home().root.certificate]
    # Nothing was waived for the second connection: OpenSSL holds the root by then.
    assert security.contexts.current() != before
    assert len(machine.ca.connections) == 2


def test_renewals_show_the_certificate_and_no_token(machine: Machine) -> None:
    source = machine.start()
    first = machine.joins(source)
    second = machine.joins(source)
    assert first.leaf != second.leaf
    before, after = machine.ca.signing
    assert (before.caller, after.caller) == ("", str(BACKEND))
    assert "token" not in after.body
    assert before.headers["idempotency-key"] != after.headers["idempotency-key"]


def test_an_answer_that_was_lost_is_asked_for_with_the_same_token_key_and_csr(
    machine: Machine,
) -> None:
    source = machine.start()
    machine.ca.next_answers = [HUNG_UP, HUNG_UP]
    for _ in range(2):
        with pytest.raises(RefusedByPeer):
            machine.joins(source)
    machine.joins(source)
    bodies = [asked.body for asked in machine.ca.signing]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["token"] == TOKEN.text
    assert len({asked.headers["idempotency-key"] for asked in machine.ca.signing}) == 1


@pytest.mark.parametrize("status", [401, 403, 409])
def test_a_token_that_is_refused_is_told_as_the_ca_tells_it(status: int, machine: Machine) -> None:
    source = machine.start()
    machine.ca.next_answers = [refused(status, "no-proof")] * 2
    for _ in range(2):
        with pytest.raises(CaRefused, match="the CA says no") as refusal:
            machine.joins(source)
        assert refusal.value.status == status
        assert TOKEN.text not in str(refusal.value) + repr(refusal.value)
    first, second = machine.ca.signing
    assert first.body == second.body, "it may be spent on this CSR, and buys nothing with another"
    assert machine.kept == []
    assert TOKEN.text not in repr(source)


def test_without_a_token_there_is_none_in_the_request(machine: Machine) -> None:
    machine.joins(machine.start(token=None))
    assert "token" not in machine.ca.signing[0].body


# Somebody else on the CA's port.


@pytest.mark.parametrize(
    ("who", "code"),
    [
        (lambda: FakeCa(svid=good_svid(None, "service", "impostor")), "not-authorized"),
        (lambda: FakeCa(home(OTHER), good_svid(home(OTHER), "mesh", "ca")), "wrong-fingerprint"),
    ],
)
def test_whoever_else_answers_is_told_nothing(
    who: Any, code: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = who()
    fake.reactor = machine.ca.reactor
    reach(monkeypatch, fake)
    with pytest.raises(PeerRefused, match=code):
        fake.until_done(machine.start().obtain(P256))
    assert fake.asked == []
    assert len(fake.connections) == 1


def test_with_a_wrong_fingerprint_the_ca_itself_is_told_nothing(machine: Machine) -> None:
    wrong = str(Fingerprint.of(home(OTHER).root.certificate))
    source = machine.start(fingerprint=wrong)
    with pytest.raises(PeerRefused, match="wrong-fingerprint") as refusal:
        machine.joins(source)
    assert FINGERPRINT in str(refusal.value)
    assert wrong in str(refusal.value)
    assert machine.ca.asked == []
    assert source.token == TOKEN


# Restarts.


def test_after_a_restart_the_kept_certificate_buys_a_fresh_one(machine: Machine) -> None:
    first = machine.joins(machine.start())
    assert [path.name for path in machine.kept] == ["svid.pem", "svid_bundle.pem", "svid_key.pem"]
    again = machine.start(token=TOKEN)
    assert again.token == TOKEN
    second = machine.joins(again)
    assert second.leaf != first.leaf
    asked = machine.ca.signing[-1]
    assert (asked.caller, "token" in asked.body) == (str(BACKEND), False)
    third = machine.start(token=None)
    machine.joins(third)
    assert machine.ca.signing[-1].caller == str(BACKEND)


def test_the_kept_one_only_proves_who_asks(machine: Machine) -> None:
    machine.joins(machine.start())
    machine.ca.next_answers = [HUNG_UP]
    with pytest.raises(RefusedByPeer):
        machine.joins(machine.start())


def test_a_kept_certificate_that_was_revoked_is_kept_no_longer(machine: Machine) -> None:
    machine.revoke(machine.joins(machine.start()))
    with pytest.raises(RefusedByPeer) as refusal:
        machine.joins(machine.start(token=None))
    assert refusal.value.problems[0].code == "revoked"
    assert machine.kept == []
    machine.joins(machine.start(token=None))
    assert machine.ca.signing[-1].caller == ""


def test_one_that_hears_of_its_revocation_while_it_runs_keeps_nothing(machine: Machine) -> None:
    source = machine.start()
    machine.revoke(machine.joins(source))
    with pytest.raises(RefusedByPeer):
        machine.ca.until_done(source.revocations())
    assert machine.kept == []


def test_a_new_token_helps_where_the_kept_certificate_does_not(machine: Machine) -> None:
    machine.revoke(machine.joins(machine.start()))
    token = JoinToken.generate()
    svid = machine.joins(machine.start(token))
    asked = machine.ca.signing[-1]
    assert (asked.caller, asked.body["token"]) == ("", token.text)
    assert "joining anew, by the token" in machine.log.text("joining-anew")
    recalled = machine.start(token=None)
    assert recalled._svid is not None
    assert recalled._svid.leaf == svid.leaf


@pytest.mark.parametrize("status", [401, 403])
def test_it_helps_too_where_the_entry_is_gone(status: int, machine: Machine) -> None:
    machine.joins(machine.start())
    machine.ca.next_answers = [refused(status, "not-authorized")]
    machine.joins(machine.start())
    kept, by_token = machine.ca.signing[-2:]
    assert (kept.caller, by_token.caller) == (str(BACKEND), "")
    assert kept.body["csr"] == by_token.body["csr"]
    assert machine.kept


@pytest.mark.parametrize("status", [422, 429, 503])
def test_a_token_is_not_burnt_for_what_it_cannot_mend(status: int, machine: Machine) -> None:
    machine.joins(machine.start())
    machine.ca.next_answers = [refused(status, "x")]
    with pytest.raises(CaRefused):
        machine.joins(machine.start())
    assert "token" not in machine.ca.signing[-1].body


def test_with_a_root_by_file_nothing_is_different(machine: Machine) -> None:
    machine.joins(machine.start())
    (machine.state / "root.crt").write_bytes(home().bundle.to_pem())
    client = ca_client(
        machine.ca.reactor, "https://ca:8443", str(machine.state / "root.crt"), machine.state, MESH
    )
    kept = saved_svid(client, machine.state, BACKEND)
    source = CaSource(client, BACKEND, lambda: TODAY, machine.log, kept=kept)
    source.recall()
    machine.joins(source)
    assert machine.ca.signing[-1].caller == str(BACKEND)


def test_over_the_socket_nothing_is_kept(tmp_path: Path) -> None:
    client = ca_client(FakeCa().reactor, None, None, tmp_path, MESH)
    assert saved_svid(client, tmp_path, BACKEND).directory is None
