"""Post-quantum keys where this Python's OpenSSL may never have heard of them: said in words, and never passed over."""

import socket
import ssl
import threading
from contextlib import closing
from pathlib import Path

import pytest

from pki.keys import KeyAlgorithm, UnknownAlgorithm
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, HOUR, MESH, key, mesh
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.stdlib.standing import standing
from tests.twisted_mesh.tls.wires import TODAY
from twisted_mesh.stdlib import KeyNotKnown, join
from twisted_mesh.stdlib.refusals import explain, knows_post_quantum
from twisted_mesh.stdlib.settings import known_to_ssl, present

POST_QUANTUM = [algorithm for algorithm in KeyAlgorithm if algorithm.kind.is_post_quantum]
older = pytest.mark.skipif(knows_post_quantum(), reason="this Python's OpenSSL knows them")
newer = pytest.mark.skipif(not knows_post_quantum(), reason="this Python's OpenSSL is before 3.5")


def svid(issuing: KeyAlgorithm, leaf: KeyAlgorithm) -> X509Svid:
    ca = mesh(MESH, key("root", issuing), key("issuing", issuing), TODAY - HOUR).issuing
    ours = key("leaf", leaf)
    drafted = ca.draft(ours.public_key, BACKEND, TODAY, HOUR)
    return X509Svid.assemble((result_of(ca.sign(drafted)), *ca.intermediates), ours)


PAIRS = [
    *((KeyAlgorithm.EC_P256, algorithm) for algorithm in POST_QUANTUM),
    (KeyAlgorithm.ML_DSA_65, KeyAlgorithm.EC_P256),
]


@older
@pytest.mark.parametrize(("issuing", "leaf"), PAIRS)
def test_a_certificate_that_cannot_be_shown_is_told_with_its_kinds(
    issuing: KeyAlgorithm, leaf: KeyAlgorithm
) -> None:
    kind = (leaf if leaf.kind.is_post_quantum else issuing).label
    with pytest.raises(KeyNotKnown, match=rf"OpenSSL 3\.\d.* knows no keys of kind {kind}: use a"):
        present(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), svid(issuing, leaf))


@newer
@pytest.mark.parametrize(("issuing", "leaf"), PAIRS)
def test_a_certificate_that_can_be_shown_is(issuing: KeyAlgorithm, leaf: KeyAlgorithm) -> None:
    present(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), svid(issuing, leaf))


@older
@pytest.mark.parametrize("algorithm", POST_QUANTUM)
def test_whoever_joins_with_such_a_key_is_told_before_anybody_is_asked(
    algorithm: KeyAlgorithm, tmp_path: Path
) -> None:
    with pytest.raises(KeyNotKnown, match=f"knows no keys of kind {algorithm.label}"):
        join(str(BACKEND), key=algorithm, state_dir=tmp_path, timeout=0)
    assert list(tmp_path.iterdir()) == []


def test_other_kinds_are_taken_and_mistyped_ones_are_told(tmp_path: Path) -> None:
    assert known_to_ssl(KeyAlgorithm.EC_P384) is KeyAlgorithm.EC_P384
    with pytest.raises(UnknownAlgorithm, match=r"^key is one of .*: did you mean ml-dsa-65\?$"):
        join(str(BACKEND), key="ml-dsa65", state_dir=tmp_path, timeout=0)


@older
def test_a_peer_with_such_a_key_is_an_error_with_a_note() -> None:
    """No certificate is refused here: the two have no signature in common, which OpenSSL calls a failure."""
    error = ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure")
    error.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    explain(error)
    (note,) = error.__notes__
    assert "may be of a post-quantum kind, which OpenSSL 3" in note
    other = ssl.SSLError(1, "another")
    other.reason = "WRONG_VERSION_NUMBER"
    explain(other)
    assert not hasattr(other, "__notes__")


@older
def test_a_handshake_that_fails_for_it_carries_the_note() -> None:
    """A real one: this side offers what nobody has, and hears the alert that it would hear of an ML-DSA server."""
    client = standing("till").client()
    plain, theirs = socket.socketpair()

    def refuse() -> None:
        with closing(theirs):
            theirs.recv(4096)
            theirs.sendall(bytes.fromhex("15030300020228"))  # alert: fatal, handshake_failure

    thread = threading.Thread(target=refuse)
    thread.start()
    with closing(plain), pytest.raises(ssl.SSLError) as caught:
        client.wrap_socket(plain, server_hostname="shop.mesh.test")
    thread.join()
    assert caught.value.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert "post-quantum kind" in caught.value.__notes__[0]
