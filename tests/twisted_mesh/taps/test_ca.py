"""A whole CA in this process, whose keys sign elsewhere: each signature is waited for, from the first start on."""

import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.testing import MemoryReactorClock

from pki.errors import PkiError
from pki.issuing.csr import build_csr
from pki.keys import MemoryKey
from pki.keys.signature import SigningFailed
from pki.ocsp.request import Issuer, OcspRequest
from pki.ocsp.response import read_answer
from pki.policy.principal import administrator
from pki.svid.revocation_set import Reason
from tests.authorities import BACKEND, key
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.taps import ca as taps_ca
from twisted_mesh.taps import lifecycle
from twisted_mesh.taps.ca import CaService
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.tls.contexts import ContextFactory

ADMIN = administrator("unix:uid:0")
HOUR = timedelta(hours=1)
SIGN = MemoryKey.sign


class Reactor(MemoryReactorClock):
    """Listens nowhere and connects nothing; what the store's thread hands over is run when the test asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = ThreadCalls()
        self.callFromThread = self.threads.callFromThread

    def adoptStreamPort(self, fileno: int, addressFamily: int, factory: Any) -> Any:
        """Unix sockets too."""
        port = super().adoptStreamPort(fileno, socket.AF_INET, factory)
        self.adoptedPorts[-1] = (fileno, addressFamily, factory)
        return port


@define(eq=False)
class Vault:
    """Where the keys are, behind a network: each signature is made when the test lets it."""

    waiting: list["Deferred[None]"] = field(factory=list)
    signed: list[MemoryKey] = field(factory=list)

    @property
    def signing(self) -> Callable[[MemoryKey, bytes], Awaitable[bytes]]:
        """The method by which keys sign."""

        async def sign(signer: MemoryKey, data: bytes) -> bytes:
            turn: Deferred[None] = Deferred()
            self.waiting.append(turn)
            await turn
            self.signed.append(signer)
            return await SIGN(signer, data)

        return sign

    def turn(self) -> None:
        """Sign what is asked for now."""
        asked, self.waiting = self.waiting, []
        for turn in asked:
            turn.callback(None)


@define(eq=False)
class House:
    """A service on a reactor of its own, and the keys of its CA."""

    service: CaService
    reactor: Reactor
    vault: Vault

    @property
    def ca(self) -> CaParts:
        assert self.service.parts is not None
        return self.service.parts

    def until(self, happened: Callable[[], object]) -> None:
        """Let things happen, signatures and the store's answers, until that has."""
        for _ in range(10_000):
            if happened():
                return
            self.vault.turn()
            store = self.service.store
            if store._busy or store._asking or store._stopping:
                self.reactor.threads.wait()
            self.reactor.threads.turn()
            self.reactor.advance(0.01)
        raise AssertionError("it never came to that")

    def result(self, coroutine: Any) -> Any:
        """What it comes to, however many signatures that waits for."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        self.until(lambda: outcome)
        with suppress(AttributeError):
            outcome[0].raiseException()
        return outcome[0]


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was left to do at the end of the process."""
    left: list[Any] = []
    monkeypatch.setattr(lifecycle.atexit, "register", left.append)
    for install in ("install_first", "install"):
        monkeypatch.setattr(lifecycle.Signals, install, lambda self: None)
    yield left
    gc.unfreeze()


@define(eq=False)
class Site:
    """A state directory, and the service on it from start to start."""

    directory: Path
    vault: Vault

    def house(self, store: str = "memory:") -> House:
        reactor, options = Reactor(), Options()
        options.parseOptions(
            [
                *("--state-dir", str(self.directory), "--store", store, "--root-key", "ec-p256"),
                *("--listen", "tcp:0:interface=127.0.0.1", "--drain", "1s"),
            ]
        )
        service = CaService(options, reactor)
        service.log = RecordingLog()
        return House(service, reactor, self.vault)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exits: list[Any]) -> Site:
    vault = Vault()
    monkeypatch.setattr(MemoryKey, "sign", vault.signing)
    # What is put aside on a thread is done at once: the reactor of this house has none of its own for it.
    monkeypatch.setattr(taps_ca, "deferToThread", maybeDeferred)
    return Site(tmp_path, vault)


@pytest.fixture
def house(site: Site) -> House:
    return site.house()


def stop(house: House) -> None:
    stopped: list[Any] = []
    house.service.stopService().addBoth(stopped.append)
    house.until(lambda: stopped)
    assert stopped == [None]


def test_the_first_start_waits_for_each_signature_and_binds_nothing_before(house: House) -> None:
    house.service.startService()
    assert len(house.vault.waiting) == 1, "the root's own"
    assert house.service.ports == []
    house.vault.turn()
    assert len(house.vault.waiting) == 1, "the issuing CA's, by the root"
    assert not house.service.state.root_certificate.exists()
    house.vault.turn()
    assert house.service.state.root_certificate.exists()
    assert len(house.service.ports) == 2
    assert house.reactor.adoptedPorts == [], "bound only"
    house.until(lambda: house.service.log.count("ready"))
    assert len(house.reactor.adoptedPorts) == 2
    assert house.service.endpoint.manager.svid is not None
    stop(house)


def test_a_ca_whose_keys_are_elsewhere_issues_revokes_and_publishes(house: House) -> None:
    house.service.startService()
    house.until(lambda: house.service.log.count("ready"))
    ca, certificates = house.ca, house.ca.certificates
    root_key, issuer = ca.authorities.root_key, ca.authorities.issuing
    assert root_key in house.vault.signed, "its CRL is signed at the start"
    csr = build_csr(key(9), BACKEND)
    house.vault.signed.clear()
    issued = house.result(certificates.sign(ADMIN, csr, str(BACKEND), HOUR))
    assert house.vault.signed == [issuer.key]
    house.vault.signed.clear()
    house.result(certificates.revoke(ADMIN, issued.serial, Reason.KEY_COMPROMISE))
    assert issuer.key in house.vault.signed, "who revokes waits for the CRL"
    crl = ca.publisher.current(issuer.key_id)
    assert crl is not None
    found = x509.load_der_x509_crl(crl.der)
    assert found.get_revoked_certificate_by_serial_number(issued.serial) is not None
    house.vault.signed.clear()
    asked = OcspRequest((Issuer.of(issuer.certificate).cert_id(issued.serial),))
    reply = house.result(ca.responder.answer(asked.to_der(), "somebody"))
    leaf = x509.load_der_x509_certificate(issued.der)
    answer = read_answer(reply.der, leaf, issuer.certificate, now=wall_clock())
    assert answer.revocation is not None
    assert house.vault.signed, "by a delegate's key"
    assert issuer.key not in house.vault.signed
    stop(house)


def test_a_rotation_waits_for_those_who_tell_the_api(house: House) -> None:
    house.service.startService()
    house.until(lambda: house.service.log.count("ready"))
    heard = house.ca.acknowledgements
    assert len(heard) == 0, "though they are empty"
    assert house.ca.root_rotator is not None
    assert house.ca.root_rotator.acknowledgements is heard
    stop(house)


def test_what_was_revoked_in_earlier_lives_is_believed_before_the_first_handshake(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.house("sqlite")
    first.service.startService()
    first.until(lambda: first.service.log.count("ready"))
    csr = build_csr(key(9), BACKEND)
    issued = first.result(first.ca.certificates.sign(ADMIN, csr, str(BACKEND), HOUR))
    first.result(first.ca.certificates.revoke(ADMIN, issued.serial, Reason.KEY_COMPROMISE))
    issuer = first.ca.authorities.issuing.key_id
    stop(first)
    second = site.house("sqlite")
    believed: list[bool] = []
    use = ContextFactory.use

    def used(factory: ContextFactory, *given: Any) -> None:
        revocations = second.service.endpoint.trust_store.trust.revocations
        believed.append(revocations.find(issuer, issued.serial) is not None)
        use(factory, *given)

    monkeypatch.setattr(ContextFactory, "use", used)
    second.service.startService()
    second.until(lambda: second.service.log.count("ready"))
    assert believed == [True]
    stop(second)


def test_a_start_that_is_stopped_while_a_key_is_waited_for_leaves_nothing_behind(
    house: House, exits: list[Any]
) -> None:
    house.service.startService()
    (turn,) = house.vault.waiting
    stop(house)
    assert turn.called, "nobody waits for it any more"
    assert house.service.ports == []
    assert not house.service.state.root_certificate.exists()
    assert exits == [], "and its status is 0"
    house.service.state.lock()  # it is free
    house.service.state.unlock()


def test_a_key_that_fails_after_a_while_ends_the_start_with_one_sentence(
    house: House, exits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(house.service, "_say", said.append)
    house.service.startService()
    house.reactor.run()
    (turn,) = house.vault.waiting
    turn.errback(SigningFailed("the token is gone"))
    assert said == ["the token is gone"]
    assert exits == [lifecycle._exit_with_failure]
    assert house.reactor.hasStopped
    assert issubclass(SigningFailed, PkiError)
