"""An endpoint whose CA replaces its root, over real TLS: while it runs, through restarts, and after a month off."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field

from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm
from pki.policy.join_token import JoinToken
from pki.svid.bundle import BundleSet
from pki.svid.pin import Fingerprint
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid, certificates_pem
from tests.authorities import BACKEND, HOUR, MESH, Mesh, key, overlap, revocation_of
from tests.twisted_mesh.fake_ca import FakeCa, reach
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.tls.wires import TODAY
from twisted_mesh.api.client import CaClient
from twisted_mesh.identity import saved_svid as kept_identity_module
from twisted_mesh.identity.bootstrap import ca_client, saved_svid
from twisted_mesh.identity.sources import CaSource
from twisted_mesh.tls.alerts import PeerRefused
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

P256 = KeyAlgorithm.EC_P256
BOTH = overlap(TODAY - HOUR)
OLD, NEW = (BOTH.old, BOTH.by_old), (BOTH.new, BOTH.by_new)
CA_ID = MESH.member("mesh", "ca")


def svid_of_ca(issuing: Authority) -> X509Svid:
    draft = issuing.draft(key("its port").public_key, CA_ID, TODAY, HOUR)
    leaf = asyncio.run(issuing.sign(draft))
    return X509Svid.assemble((leaf, *issuing.intermediates), key("its port"))


def trusting(*roots: Authority, revoked: RevocationSet | None = None) -> Trust:
    return Trust(BundleSet.of(BOTH.bundle_of(*roots)), revoked or RevocationSet())


@define(eq=False)
class Machine:
    """An endpoint's machine, and a CA whose port is under one root or the other."""

    monkeypatch: pytest.MonkeyPatch
    state: Path
    by_file: bool
    ca: FakeCa = field(init=False)
    log: RecordingLog = field(factory=RecordingLog)

    def __attrs_post_init__(self) -> None:
        self.run_ca(*OLD)

    def run_ca(self, root: Authority, issuing: Authority) -> None:
        """The CA serves and issues by that path from now on, and its port believes both roots."""
        of = Mesh(MESH, root, issuing)
        ca = FakeCa(of, svid_of_ca(issuing))
        ca.end.judge.trust = evolve(ca.end.judge.trust, bundles=BundleSet.of(BOTH.bundle))
        ca.end.contexts.replace(ca.svid, BOTH.bundle.roots)
        if hasattr(self, "ca"):
            ca.reactor = self.ca.reactor
        self.ca = ca
        reach(self.monkeypatch, ca)

    def client(self, root: Authority = BOTH.old) -> CaClient:
        """As the options of a start make it, which name that root."""
        options: dict[str, Any] = {"ca_fingerprint": str(Fingerprint.of(root.certificate))}
        file = None
        if self.by_file:
            path = self.state.parent / f"{root.certificate.serial_number}.pem"
            path.write_bytes(certificates_pem([root.certificate]))
            file, options = str(path), {}
        return ca_client(self.ca.reactor, "https://ca:8443", file, self.state, MESH, **options)

    def start(self, token: JoinToken | None = None, root: Authority = BOTH.old) -> CaSource:
        client = self.client(root)
        kept = saved_svid(client, self.state, BACKEND)
        source = CaSource(client, BACKEND, lambda: TODAY, self.log, token=token, kept=kept)
        source.recall()
        return source

    def obtain(self, source: CaSource) -> X509Svid:
        svid: X509Svid = self.ca.until_done(source.obtain(P256)).svid
        return svid

    def join(self) -> tuple[CaSource, X509Svid]:
        source = self.start(JoinToken.generate())
        return source, self.obtain(source)


@pytest.fixture(params=["by fingerprint", "by file"])
def machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Machine]:
    machine = Machine(monkeypatch, tmp_path / "state", request.param == "by file")
    monkeypatch.setattr(kept_identity_module, "_log", machine.log)
    yield machine


def moved(svid: X509Svid) -> X509Svid:
    return evolve(svid, intermediates=(BOTH.by_new.certificate,))


def test_options_that_name_the_old_root_start_it_at_every_step_and_after_the_last(
    machine: Machine,
) -> None:
    source, svid = machine.join()
    source.serve(svid, trusting(BOTH.old, BOTH.new))
    machine.obtain(machine.start())
    source = machine.start()
    svid = moved(machine.obtain(source))
    machine.run_ca(*NEW)
    source.serve(svid, trusting(BOTH.old, BOTH.new))
    machine.obtain(machine.start())
    source = machine.start()
    source.serve(machine.obtain(source), trusting(BOTH.new))
    for _ in range(2):
        machine.obtain(machine.start())
    assert all(asked.caller == str(BACKEND) for asked in machine.ca.signing)
    machine.run_ca(*OLD)
    with pytest.raises(PeerRefused):
        machine.obtain(machine.start())
    assert machine.ca.asked == [], "whoever has the retired root's key is not the CA"


def test_who_was_off_from_before_to_after_is_told_what_to_do_and_a_new_line_heals_it(
    machine: Machine,
) -> None:
    machine.join()
    machine.run_ca(*NEW)
    with pytest.raises(PeerRefused) as refusal:
        machine.obtain(machine.start())
    said = str(refusal.value)
    assert "mesh-ctl token create" in said
    assert "replaced its root while this was off" in said
    assert "nothing has to be deleted here" in said
    assert machine.ca.asked == []
    token = JoinToken.generate()
    source = machine.start(token, BOTH.new)
    machine.obtain(source)
    assert machine.ca.signing[0].body["token"] == token.text
    machine.obtain(machine.start(root=BOTH.new))
    assert machine.ca.signing[-1].caller == str(BACKEND), "and from then on it needs none"


def test_a_root_that_was_distrusted_is_met_by_nobody_again(machine: Machine) -> None:
    source, svid = machine.join()
    gone = revocation_of(BOTH.old, BOTH.old.certificate, TODAY + 24 * HOUR)
    revoked = RevocationSet().merged([gone], TODAY)
    source.serve(moved(svid), trusting(BOTH.new, revoked=revoked))
    machine.ca.asked.clear()
    with pytest.raises(PeerRefused, match="revoked"):
        machine.obtain(machine.start())
    assert machine.ca.asked == []
    assert "was distrusted since" in machine.log.text("identity-unusable")
    machine.run_ca(*NEW)
    machine.obtain(machine.start(JoinToken.generate(), BOTH.new))


# While it runs.


@define(eq=False)
class Running:
    """An endpoint that has joined, and what it believes of everybody."""

    machine: Machine
    judge: Judge = field(factory=lambda: Judge(lambda: TODAY, trusting(BOTH.old)))
    source: CaSource = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.source = self.machine.start(JoinToken.generate())
        self.source.client.heed(self.judge)
        self.machine.obtain(self.source)

    def believe(self, trust: Trust) -> None:
        self.judge.trust = trust

    def ask(self) -> None:
        self.machine.ca.until_done(self.source.revocations())


@pytest.fixture
def running(machine: Machine) -> Running:
    return Running(machine)


def test_the_ca_is_believed_by_whatever_roots_are_believed_of_all(running: Running) -> None:
    running.ask()
    running.machine.run_ca(*NEW)
    with pytest.raises(PeerRefused):
        running.ask()
    running.believe(trusting(BOTH.old, BOTH.new))
    running.ask()
    running.machine.run_ca(*OLD)
    running.ask()
    running.believe(trusting(BOTH.new))
    with pytest.raises(PeerRefused):
        running.ask()
    running.machine.run_ca(*NEW)
    running.ask()


@pytest.mark.parametrize(
    "gone", [BOTH.old.certificate, BOTH.by_old.certificate], ids=["root", "issuing CA"]
)
def test_a_ca_by_what_is_revoked_is_told_nothing(running: Running, gone: Any) -> None:
    revocation = revocation_of(BOTH.old, gone, TODAY + 24 * HOUR)
    revoked = RevocationSet().merged([revocation], TODAY)
    running.believe(trusting(BOTH.old, BOTH.new, revoked=revoked))
    with pytest.raises(PeerRefused, match="revoked"):
        running.ask()


def test_who_believes_nobody_any_more_still_believes_its_ca(running: Running) -> None:
    running.believe(Trust())
    running.ask()


def test_a_certificate_whose_issuer_is_revoked_is_shown_to_the_ca_to_be_renewed(
    running: Running,
) -> None:
    """And to nobody else: the CA lets it have another, and does not show such a one itself."""
    revocation = revocation_of(BOTH.old, BOTH.by_old.certificate, TODAY + 24 * HOUR)
    revoked = RevocationSet().merged([revocation], TODAY)
    running.believe(trusting(BOTH.old, BOTH.new, revoked=revoked))
    running.machine.run_ca(*NEW)
    running.machine.obtain(running.source)
    assert running.machine.ca.signing[-1].caller == str(BACKEND)


def test_a_switched_path_is_shown_to_the_ca_too(running: Running) -> None:
    svid = running.source._svid
    assert svid is not None
    running.believe(trusting(BOTH.old, BOTH.new))
    running.source.serve(moved(svid), running.judge.trust)
    running.ask()
    assert running.source.client.security is not None
    shown = running.source.client.security.contexts.shown
    assert shown is not None
    assert shown.chain == (svid.leaf, BOTH.by_new.certificate)
