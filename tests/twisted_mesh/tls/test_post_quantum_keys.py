"""ML-DSA in handshakes: chains of ten kilobytes and more through every bound, and peers that do not know the kind."""

from itertools import product

import pytest
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from pki.keys import KeyAlgorithm
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import BACKEND, HOUR, MESH, Mesh, key, mesh
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.tls.wires import TODAY, End, converse
from twisted_mesh.tls.openssl_errors import from_openssl

EC, LONGEST = KeyAlgorithm.EC_P256, KeyAlgorithm.ML_DSA_87
POST_QUANTUM = [algorithm for algorithm in KeyAlgorithm if algorithm.kind.is_post_quantum]


def domain(algorithm: KeyAlgorithm) -> Mesh:
    return mesh(MESH, key("root", algorithm), key("issuing", algorithm), TODAY - HOUR)


def svid(ca: Mesh, algorithm: KeyAlgorithm) -> X509Svid:
    ours = key("leaf", algorithm)
    drafted = ca.issuing.draft(ours.public_key, BACKEND, TODAY, HOUR)
    return X509Svid.assemble((result_of(ca.issuing.sign(drafted)), *ca.issuing.intermediates), ours)


def size(shown: X509Svid) -> int:
    return sum(len(cert.public_bytes(serialization.Encoding.DER)) for cert in shown.chain)


def heard(client: End, server: End) -> bytes:
    """What the server hears of a client that is let in, and says so."""
    talk = converse(client, server)
    assert talk.calling.made, talk.outcome
    talk.calling.made[0].transport.write(b"hello")
    talk.pump()
    return talk.served.made[0].heard


@pytest.mark.parametrize(
    ("ca", "leaf"), [*product([EC, LONGEST], [EC, *POST_QUANTUM]), (POST_QUANTUM[1], EC)]
)
def test_two_ends_talk_whatever_the_kinds_of_their_keys(
    ca: KeyAlgorithm, leaf: KeyAlgorithm
) -> None:
    of = domain(ca)
    server = End(serves=True, svid=svid(of, leaf), believes=of)
    client = End(serves=False, svid=svid(of, EC), believes=of, looks_first=True)
    assert heard(client, server) == b"hello"


def test_the_longest_chains_fit_at_both_sides() -> None:
    of = domain(LONGEST)
    shown = svid(of, LONGEST)
    assert size(shown) > 15_000
    client = End(serves=False, svid=shown, believes=of)
    assert heard(client, End(serves=True, svid=shown, believes=of)) == b"hello"


def test_a_refusal_of_a_long_chain_is_remembered_like_any_other() -> None:
    """Or whoever shows one costs as much each time as the first time."""
    judge = End(serves=True, believes=domain(EC)).judge
    stranger = svid(domain(LONGEST), LONGEST)
    first = judge.verdict(stranger.chain, Purpose.CLIENT)
    assert not first.ok
    assert judge.verdict(stranger.chain, Purpose.CLIENT) is first


def test_a_peer_whose_library_does_not_know_the_kind_is_told_of_in_words() -> None:
    """As curl with OpenSSL 3.0 is, and whatever is written in Go."""
    of = domain(EC)
    server = End(serves=True, svid=svid(of, LONGEST), believes=of)
    presented = server.contexts.current()
    assert presented is not None
    served = SSL.Connection(presented[0], None)
    served.set_accept_state()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # What OpenSSL 3.0 offers; pyOpenSSL has no public setter.
    assert SSL._lib.SSL_CTX_set1_sigalgs_list(context._context, b"ecdsa_secp256r1_sha256")  # type: ignore[attr-defined]
    client = SSL.Connection(context, None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    served.bio_write(client.bio_read(16384))
    with pytest.raises(SSL.Error) as broken:
        served.do_handshake()
    problem = from_openssl(broken.value)
    assert problem.code == "handshake-failure"
    assert "knows no signature that a key like ours makes" in problem.detail
    assert "--key ec-p256" in problem.remedy
    client.bio_write(served.bio_read(16384))
    with pytest.raises(SSL.Error) as refused:
        client.do_handshake()
    assert "if our library is older than the other side's key" in from_openssl(refused.value).remedy
