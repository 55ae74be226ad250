"""First trust: who knows the root's fingerprint alone meets the CA and nobody else, in one handshake."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.issuing.authority import Authority
from pki.issuing.profile import ROOT
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.x509svid import Purpose, X509Svid, extension
from tests.authorities import (
    DAY,
    HOUR,
    MESH,
    der,
    forge,
    forge_issuing,
    forge_root,
    key,
)
from tests.twisted_mesh.tls.test_handshake import tls_records
from tests.twisted_mesh.tls.wires import (
    TODAY,
    Conversation,
    End,
    Wire,
    converse,
    good_svid,
    home,
    svid_of,
)
from twisted_mesh.tls import verify
from twisted_mesh.tls.alerts import PeerRefused
from twisted_mesh.tls.contexts import Role
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

CA = "spiffe://mesh.local/mesh/ca"
LIVES = {"start": TODAY - HOUR, "end": TODAY + HOUR}
CA_LIVES = {"start": TODAY - HOUR, "end": TODAY + DAY}

pytestmark = pytest.mark.parametrize("exact_alerts", [True, False], ids=["cffi", "public"])


def pin(root: x509.Certificate | None = None, trust_domain: TrustDomain = MESH) -> RootPin:
    return RootPin(Fingerprint.of(root or home().root.certificate), trust_domain)


def meeting(exact_alerts: bool, pinned: RootPin | None = None, svid: X509Svid | None = None) -> End:
    """A client that knows a fingerprint only."""
    end = End(False, svid, exact_alerts=exact_alerts)
    end.judge = PinnedJudge(
        lambda: end.time, Trust(allow=(SpiffePattern.parse(CA),)), pin=pinned or pin()
    )
    end.contexts.replace(svid, ())
    end.security = evolve(end.security, judge=end.judge)
    return end


def answering(svid: X509Svid | None = None, *, with_root: bool = True) -> End:
    """Who answers on the CA's port, and whether its root goes along: by default the CA as it is."""
    end = End(True, svid or the_ca())
    end.contexts.role = Role(serves=True, demands_certificate=False, sends_root=with_root)
    end.contexts.replace(end.svid, end.believes.bundles.all_roots)
    return end


def the_ca() -> X509Svid:
    return good_svid(None, "mesh", "ca")


def below(issuing: Authority, *along: x509.Certificate, uri: str = CA, **more: Any) -> X509Svid:
    """A leaf of that CA, with what is sent along besides its intermediates."""
    leaf = forge(issuing, uris=[uri], **{**LIVES, **more})
    return svid_of(leaf, (*issuing.intermediates, *along))


def refusal(conversation: Conversation) -> PeerRefused:
    """Why the client refused, after it has been made sure that it told nothing."""
    error = conversation.client_error
    assert isinstance(error, PeerRefused), error
    assert all(talker.connected_times == 0 for talker in conversation.calling.made)
    assert all(talker.connected_times == 0 for talker in conversation.served.made)
    return error


def codes(conversation: Conversation) -> list[str]:
    return [problem.code for problem in refusal(conversation).problems]


def test_the_ca_is_met_in_one_handshake_and_then_believed(exact_alerts: bool) -> None:
    client = meeting(exact_alerts)
    conversation = converse(client, answering())
    assert conversation.outcome == conversation.calling.made
    conversation.calling.made[0].transport.write(b"hello")
    conversation.pump()
    assert conversation.served.made[0].heard == b"hello"
    assert str(conversation.calling.made[0].transport.peer.spiffe_id) == CA
    assert client.judge.pin is None
    assert client.judge.trust.bundles.all_roots == [home().root.certificate]
    assert client.judge.trust.generation == 1


def test_what_is_waived_once_is_not_waived_again(exact_alerts: bool) -> None:
    client = meeting(exact_alerts)
    assert converse(client, answering()).outcome
    # OpenSSL still does not hold the root: now that counts.
    assert codes(converse(client, answering())) == ["unknown-authority"]
    client.contexts.replace(None, client.judge.trust.bundles.all_roots)
    assert converse(client, answering()).calling.made[0].connected_times == 1


def test_two_handshakes_at_once_meet_the_same_root(exact_alerts: bool) -> None:
    client = meeting(exact_alerts)
    late = Conversation(client, answering())
    pump, late.pump = late.pump, lambda: None  # type: ignore[method-assign]
    late.connect()
    assert converse(client, answering()).calling.made[0].connected_times == 1
    pump()
    assert late.calling.made[0].connected_times == 1


class Recorder(Wire):
    """A wire that keeps what was sent over it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data
        super().write(data)


ANOTHER = TrustDomain("another.example")


def test_a_wrong_fingerprint_is_noticed_before_anything_of_ours_is_sent(exact_alerts: bool) -> None:
    expected = pin(home(ANOTHER).root.certificate)
    ours = good_svid()
    client = meeting(exact_alerts, expected, ours)
    conversation = Conversation(client, answering(), client_wire=Recorder())
    conversation.connect()
    (problem,) = refusal(conversation).problems
    assert problem.code == "wrong-fingerprint"
    assert str(Fingerprint.of(home().root.certificate)) in problem.detail
    assert str(expected.fingerprint) in problem.detail
    wire = conversation.client_wire
    assert isinstance(wire, Recorder)
    hello, *rest = tls_records(wire.sent)
    assert hello[0] == 22
    # A change of cipher for old middleboxes, and an alert.
    assert {(record[0], len(record) - 5) for record in rest} <= {(20, 1), (21, 2)}
    assert client.judge.pin == expected
    assert client.judge.trust.bundles.all_roots == []


def test_a_client_that_has_an_identity_shows_it_to_the_ca_it_has_met(exact_alerts: bool) -> None:
    conversation = converse(meeting(exact_alerts, svid=good_svid()), answering())
    peer = conversation.served.made[0].transport.peer
    assert str(peer.spiffe_id) == "spiffe://mesh.local/service/backend"


def thief(of: Authority) -> Authority:
    """Signs with a key of its own in the name of a CA, whose certificate is public and is sent along."""
    theirs = extension(of.certificate, x509.SubjectKeyIdentifier)
    assert theirs is not None
    certificate = forge(
        None,
        ROOT,
        subject_key=key("a thief's"),
        subject=of.certificate.subject,
        replace={x509.SubjectKeyIdentifier: (theirs, False)},
        **CA_LIVES,
    )
    return Authority(certificate, key("a thief's"), of.intermediates)


@cache
def self_issued() -> Authority:
    """Named as if it had signed itself, and signed by somebody else."""
    certificate = forge(
        thief(home().root),
        ROOT,
        subject_key=key("self-issued"),
        issuer_name=home().root.certificate.subject,
        replace={x509.AuthorityKeyIdentifier: None},
        **CA_LIVES,
    )
    assert certificate.issuer == certificate.subject
    return Authority(certificate, key("self-issued"))


def issuing_of(root: Authority) -> Authority:
    return forge_issuing(root, **CA_LIVES)


def a_root(**overrides: Any) -> Authority:
    return forge_root("a pinned root", **{**CA_LIVES, **overrides})


def chain_of(root: Authority) -> X509Svid:
    return below(issuing_of(root), root.certificate)


#: Who answers, what is pinned, and the codes by both paths.
Meeting = tuple[X509Svid, x509.Certificate, str, str]


def meetings() -> dict[str, Callable[[], Meeting]]:
    root = home().root.certificate
    issuing = home().issuing

    def case(svid: X509Svid, pinned: x509.Certificate, code: str, public: str = "") -> Meeting:
        return svid, pinned, code, public or code

    def odd(code: str, **overrides: Any) -> Meeting:
        found = a_root(**overrides)
        return case(chain_of(found), found.certificate, code)

    return {
        "a workload of the mesh": lambda: case(good_svid(), root, "incomplete-chain"),
        "a workload that sends the root": lambda: case(
            below(issuing, root, uri="spiffe://mesh.local/service/x"), root, "not-authorized"
        ),
        "the CA without its root": lambda: case(the_ca(), root, "incomplete-chain"),
        "an issuing CA that the root did not sign": lambda: case(
            below(issuing_of(thief(home().root)), root),
            root,
            "bad-signature",
            "bad-certificate",
        ),
        "a leaf that the issuing CA did not sign": lambda: case(
            below(thief(issuing), root), root, "bad-signature"
        ),
        "a root of another CA beside the pinned one": lambda: case(
            below(issuing_of(a_root()), a_root().certificate, root), root, "wrong-fingerprint"
        ),
        "the pinned root alone": lambda: case(
            svid_of(root, (), key("root of mesh.local")), root, "not-an-svid"
        ),
        "an issuing CA is pinned, and the root stays away": lambda: case(
            the_ca(), issuing.certificate, "not-a-root"
        ),
        "an issuing CA is pinned, and the root comes": lambda: case(
            below(issuing, root), issuing.certificate, "wrong-fingerprint"
        ),
        "what is pinned only looks signed by itself": lambda: case(
            chain_of(self_issued()), self_issued().certificate, "not-a-root"
        ),
        "the CA's leaf has expired": lambda: case(
            below(issuing, root, end=TODAY - timedelta(seconds=1)), root, "expired"
        ),
        "the CA's leaf is of another trust domain": lambda: case(
            below(issuing, root, uri="spiffe://other.example/mesh/ca"),
            root,
            "unknown-trust-domain",
        ),
        "the CA's leaf is for clients only": lambda: case(
            below(
                issuing,
                root,
                replace={
                    x509.ExtendedKeyUsage: (
                        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
                        False,
                    )
                },
            ),
            root,
            "wrong-usage",
        ),
        "the root names another trust domain": lambda: odd(
            "unknown-trust-domain", uris=["spiffe://other.example"]
        ),
        "the root names two": lambda: odd(
            "unknown-trust-domain", uris=["spiffe://mesh.local", "spiffe://other.example"]
        ),
        "the root names none": lambda: odd(
            "unknown-trust-domain", replace={x509.SubjectAlternativeName: None}
        ),
        "the root is no CA": lambda: odd(
            "not-a-ca", replace={x509.BasicConstraints: (x509.BasicConstraints(False, None), True)}
        ),
        "the root has expired": lambda: odd("expired", end=TODAY - timedelta(seconds=1)),
    }


@pytest.mark.parametrize("name", meetings())
def test_nobody_else_is_met(name: str, exact_alerts: bool) -> None:
    svid, pinned, code, public = meetings()[name]()
    client = meeting(exact_alerts, pin(pinned))
    assert (code if exact_alerts else public) in codes(
        converse(client, answering(svid, with_root=False))
    )
    assert client.judge.pin == pin(pinned)
    assert client.judge.trust.bundles.all_roots == []


@pytest.mark.parametrize("name", meetings())
def test_our_own_verdict_says_so_whatever_openssl_would(name: str, exact_alerts: bool) -> None:
    svid, pinned, *_ = meetings()[name]()
    client = meeting(exact_alerts, pin(pinned))
    assert not client.judge.verdict(svid.chain, Purpose.SERVER).ok
    assert client.judge.pin == pin(pinned)
    assert converse(client, answering(with_root=True)).calling.made[0].connected_times == (
        pin(pinned) == pin()
    )


def test_who_was_refused_does_not_stand_in_the_cas_way(exact_alerts: bool) -> None:
    client = meeting(exact_alerts)
    assert codes(converse(client, answering(with_root=False))) == ["incomplete-chain"]
    assert converse(client, answering()).calling.made[0].connected_times == 1


@pytest.mark.parametrize("errno", [2, 7, 10, 18, 20, 21, 24, 26, 62, 66, 67, 68])
def test_no_other_objection_is_waived(errno: int, exact_alerts: bool) -> None:
    client = meeting(exact_alerts)
    root = der(home().root.certificate)
    handshake = verify.Handshake(client.judge, Purpose.SERVER)
    assert handshake.waives(19, root)
    assert not handshake.waives(errno, root)
    assert not handshake.waives(19, der(home().issuing.certificate))
    assert not verify.Handshake(End(False).judge, Purpose.SERVER).waives(19, root)
