"""``--source`` beside the options that go with it, and those that do not."""

import sys
from typing import Any

import pytest

from pki.errors import Malformed, PkiError
from pki.spiffe import SpiffeId, TrustDomain
from twisted_mesh.cli.client import command
from twisted_mesh.cli.client_session import Session
from twisted_mesh.taps.agent_options import Options as AgentOptions
from twisted_mesh.taps.server_options import Options as ServerOptions
from twisted_mesh.workload.source_options import SourceOption

SOURCE = "workload:unix:///run/a.sock"
USUAL: dict[str, Any] = dict.fromkeys(
    (
        *("ca-url", "ca-file", "ca-fingerprint", "ca-user", "join-token", "join-token-file"),
        *("attest", "ttl", "dns", "ip", "spiffe-id", "trust-domain"),
    )
)


def parsed(**changes: Any) -> SourceOption:
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    found = SourceOption.parse({**USUAL, "source": SOURCE, **named})
    assert found is not None
    return found


def test_without_it_a_ca_is_asked() -> None:
    assert SourceOption.parse({**USUAL, "source": None, "ca-url": "https://ca"}) is None


def test_our_trust_domain_is_that_of_our_id_or_the_one_that_is_said() -> None:
    assert parsed().trust_domain is None
    assert parsed(trust_domain="example.org").trust_domain == TrustDomain("example.org")
    found = parsed(spiffe_id="spiffe://example.org/a")
    assert found.trust_domain == TrustDomain("example.org")
    assert found.chosen.spiffe_id == SpiffeId.parse("spiffe://example.org/a")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ca_url": "https://ca:1"}, "--source and --ca-url exclude each other"),
        ({"ca_file": "root.crt"}, "--source and --ca-file exclude"),
        ({"join_token_file": "-"}, "--source and --join-token-file exclude"),
        ({"attest": "k8s"}, "--source and --attest exclude"),
        ({"ttl": "5m"}, "--ttl is for a CA"),
        ({"dns": ["a"]}, "--dns is for a CA"),
        ({"spiffe_id": "spiffe://a/b", "trust_domain": "c"}, "is not of --trust-domain c"),
        ({"spiffe_id": "backend"}, "backend"),
        ({"trust_domain": ""}, "empty"),
        ({"source": "unix:///a"}, "write workload:unix:///PATH"),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_a_sentence(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PkiError) as caught:
        parsed(**changes)
    assert said in str(caught.value)


@pytest.mark.parametrize("module", ["h2", "google.protobuf"])
def test_without_the_extra_it_says_how_to_install_that(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Malformed, match=r"pip install 'twisted-mesh\[workload\]'"):
        parsed()


def of_server(*words: str) -> ServerOptions:
    options = ServerOptions()
    options.parseOptions(list(words))
    return options


def test_a_server_takes_its_trust_domain_from_it() -> None:
    options = of_server("--source", SOURCE, "--spiffe-id", "spiffe://example.org/a")
    assert options["trust-domain"] == TrustDomain("example.org")
    wanted = options.wanted()
    assert wanted.spiffe_id == SpiffeId.parse("spiffe://example.org/a")
    assert of_server("--source", SOURCE).wanted().spiffe_id is None


def test_a_server_refuses_what_does_not_go_together() -> None:
    with pytest.raises(SystemExit, match="--source and --ca-url exclude each other"):
        of_server("--source", SOURCE, "--ca-url", "https://localhost:1")


def test_an_agent_that_serves_workloads_has_a_ca() -> None:
    options = AgentOptions()
    with pytest.raises(SystemExit, match="--source is for the files of --write"):
        options.parseOptions(["--name", "web-1", "--source", SOURCE])


def of_client(*words: str) -> Session:
    return Session.of(command.make_context("mesh-client", ["--source", SOURCE, *words]).params)


def test_a_client_has_to_be_told_who_may_answer() -> None:
    with pytest.raises(Malformed, match="--server-id"):
        of_client()
    assert of_client("--server-id", "spiffe://example.org/**").wanted.spiffe_id is None
    session = of_client("--trust-domain", "example.org")
    assert str(session.server_id) == "spiffe://example.org/service/api-server"
    with pytest.raises(Malformed, match="--source and --ca-url exclude each other"):
        of_client("--ca-url", "https://localhost:1", "--server-id", "spiffe://a/b")
