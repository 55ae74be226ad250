"""``pki-inspect probe --groups``: by which groups a server exchanges keys, and what is thought of that."""

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from tests.looked_at import plain_server, served
from tests.twisted_mesh.cli.test_inspect_probe import private, run, seen
from tests.twisted_mesh.tls.test_groups import tell
from twisted_mesh.testing import MemoryCa
from twisted_mesh.tls.conversation import Target
from twisted_mesh.tls.hybrid import HYBRID
from twisted_mesh.tls.probe import Wishes
from twisted_mesh.tls.probe_groups import OFFERED, Groups, KeyExchange, Taking, probe_groups

CLASSICAL = OFFERED[len(HYBRID) :]


@pytest.fixture(scope="module")
def ca() -> MemoryCa:
    return MemoryCa()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: MemoryCa) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root.crt").write_bytes(ca.bundle.to_pem())


def server(ca: MemoryCa, groups: str, **options: Any) -> Callable[[socket.socket], None]:
    svid = ca.issue("shop")
    change = partial(tell, names=groups) if groups else lambda context: None
    return plain_server(svid.chain, private(svid.key), change=change, **options)


@pytest.mark.parametrize(
    ("groups", "verdict"),
    [
        (":".join(HYBRID), "hybrid only"),
        ("X25519MLKEM768:x25519:secp256r1", "hybrid"),
        ("x25519", "classical only"),
    ],
)
def test_each_group_is_tried_and_the_whole_judged(ca: MemoryCa, groups: str, verdict: str) -> None:
    with served(server(ca, groups)) as port:
        said = seen(port, "--roots", "root.crt", "--groups", status=0)
        taken = [name for name, found in said["groups"]["takes"].items() if found == "taken"]
        assert taken == groups.split(":")
        assert set(said["groups"]["takes"].values()) == {"taken", "refused"}
        assert said["groups"]["verdict"] == verdict
        kind = "classical" if verdict == "classical only" else "hybrid"
        assert said["key_exchange"] == kind
        text = run(f"localhost:{port}", "--roots", "root.crt", "--groups", status=0).stdout
        assert f"key exchange: {verdict}" in text
        assert f"({kind}" in text


def test_without_the_option_one_connection_says_which_it_was(ca: MemoryCa) -> None:
    with served(server(ca, "")) as port:
        said = seen(port, "--roots", "root.crt", status=0)
        assert "groups" not in said
        assert said["group"] == "X25519MLKEM768"
        assert said["key_exchange"] == "hybrid"


def test_a_server_of_tls_1_2_takes_no_hybrid_one(ca: MemoryCa) -> None:
    def change(context: SSL.Context) -> None:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)

    svid = ca.issue("shop")
    with served(plain_server(svid.chain, private(svid.key), change=change)) as port:
        found = probe_groups(Target("localhost", port), Wishes())
    assert found.verdict is KeyExchange.CLASSICAL_ONLY
    assert all(found.takes[name] is Taking.REFUSED for name in HYBRID)


def test_who_hangs_up_without_a_word_is_not_judged() -> None:
    with served(lambda connection: None) as port:
        found = probe_groups(Target("localhost", port), Wishes(seconds=1.0))
    assert set(found.takes.values()) == {Taking.UNKNOWN}
    assert found.verdict is KeyExchange.UNKNOWN


@pytest.mark.parametrize(
    ("hybrid", "classical", "verdict"),
    [
        ("taken", "unknown", "hybrid"),
        ("unknown", "taken", "unknown"),
        ("unknown", "refused", "unknown"),
        ("refused", "refused", "unknown"),
    ],
)
def test_the_verdict_is_never_better_or_worse_than_what_was_seen(
    hybrid: str, classical: str, verdict: str
) -> None:
    takes = dict.fromkeys(HYBRID, Taking(hybrid)) | dict.fromkeys(CLASSICAL, Taking(classical))
    assert Groups(takes).verdict == verdict
