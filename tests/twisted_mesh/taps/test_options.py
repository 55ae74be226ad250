"""What the options of mesh-ca and mesh-server mean, and one sentence for each that cannot be used."""

import os
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pki.keys import KeyAlgorithm
from pki.policy.lifetimes import Lifetimes
from twisted_mesh import observe
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.taps.agent_options import Options as AgentOptions
from twisted_mesh.taps.ca_options import Options as CaOptions
from twisted_mesh.taps.proxy_options import Options as ProxyOptions
from twisted_mesh.taps.server_options import Options as ServerOptions
from twisted_mesh.taps.service_options import ServiceOptions

HOUR = timedelta(hours=1)
KINDS: dict[str, type[ServiceOptions]] = {
    "mesh-agent": AgentOptions,
    "mesh-ca": CaOptions,
    "mesh-server": ServerOptions,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", "/the/state")


def parsed(program: str, *arguments: str, parent: dict[str, Any] | None = None) -> ServiceOptions:
    options = KINDS[program]()
    if parent is not None:
        options.parent = parent  # what twistd does
    options.parseOptions(list(arguments))
    return options


def refusal(program: str, *arguments: str) -> str:
    with pytest.raises(SystemExit) as refused:
        parsed(program, *arguments)
    text = refused.value.code
    assert isinstance(text, str)
    assert text.startswith(f"{program}: ")
    assert text.isprintable()
    assert "Error" not in text
    return text


@pytest.mark.parametrize("program", [*KINDS, "mesh-proxy"])
def test_the_examples_of_help_are_safe_and_in_one_column(program: str) -> None:
    options = ProxyOptions if program == "mesh-proxy" else KINDS[program]
    _, heading, shown = options.synopsis.partition("Example: ")
    assert all(
        line.startswith(f"twistd -n {program} ")
        for line in dedent(" " * len(heading) + shown).splitlines()
    )
    assert shown and "insecure" not in shown and "unsafe" not in shown


def test_the_defaults_of_the_ca_are_those_of_the_contract() -> None:
    options = parsed("mesh-ca")
    assert options["listen"] == "8443"
    assert str(options["trust-domain"]) == "mesh.local"
    assert options["lifetimes"] == Lifetimes(HOUR, 24 * HOUR)
    assert options["root-key"] == KeySpec(KeyAlgorithm.RSA_4096)
    assert options["issuing-key"] == KeySpec(KeyAlgorithm.EC_P256)
    assert options["audit-key"] is None
    assert options["key-store"] == []
    assert options["token-pin-file"] is options["token-pin-fd"] is None
    assert options["jwt-key"] is KeyAlgorithm.EC_P256
    assert options["jwt-lifetimes"] == Lifetimes(timedelta(minutes=5), timedelta(hours=1))
    assert options["jwt-key-duration"] == timedelta(days=7)
    assert options["oidc"] is options["oidc-issuer"] is None
    assert options["issuing-duration"] == timedelta(days=365)
    assert options["key-passphrase-file"] is None
    assert options["key-passphrase-fd"] is None
    assert options["insecure-http"] is None
    assert options["issuance-log"] is None
    assert options["crl-http"] is None
    assert options["drain"] == 10
    assert options["state-dir"] == Path("/the/state")


def test_the_defaults_of_the_server_are_those_of_the_contract() -> None:
    options = parsed("mesh-server")
    assert options["listen"] == "9443"
    assert str(options["spiffe-id"]) == "spiffe://mesh.local/service/api-server"
    assert (options["dns"], options["ip"]) == (["localhost"], [ip_address("127.0.0.1")])
    assert options["allow"] == []
    assert options["rotate-at"] == 0.5
    assert options["ttl"] is None
    assert options["ca-url"] is None
    assert options["ca-fingerprint"] is None
    assert options["join-token"] is None
    assert options["status"] is None


def test_what_is_given_is_understood() -> None:
    ca = parsed(
        "mesh-ca",
        *("--port", "9000", "--trust-domain", "td.example", "--root-key", "ec-p384"),
        *("--cert-duration", "90s", "--max-cert-duration", "7d", "--insecure-http", "0"),
        *("--state-dir", "/s", "--drain", "1m", "--log-format", "json"),
    )
    assert ca["listen"] == "9000"
    assert str(ca["trust-domain"]) == "td.example"
    assert ca["lifetimes"] == Lifetimes(timedelta(seconds=90), timedelta(days=7))
    assert ca["state-dir"] == Path("/s")
    assert ca["drain"] == 60
    assert ca["root-key"] == KeySpec(KeyAlgorithm.EC_P384)
    token = "pkcs11:token=mesh?module-path=/m.so"
    stored = parsed(
        "mesh-ca",
        *("--root-key", f"{token}&algorithm=ec-p256", "--issuing-key", "signer:unix:/run/s"),
        *("--audit-key", token, "--key-store", "signer:unix:/old?key=x", "--token-pin-fd", "3"),
    )
    assert stored["root-key"] == KeySpec(KeyAlgorithm.EC_P256, token)
    assert stored["issuing-key"] == KeySpec(KeyAlgorithm.EC_P256, "signer:unix:/run/s")
    assert stored["audit-key"] == KeySpec(KeyAlgorithm.ED25519, token)
    assert stored["key-store"] == ["signer:unix:/old"]
    assert stored["token-pin-fd"] == 3
    server = parsed(
        "mesh-server",
        *("--trust-domain", "td.example", "--dns", "a.example", "--dns", "b.example"),
        *("--ip", "::1", "--allow", "spiffe://td.example/a", "--allow", "spiffe://td.example/b/**"),
        *("--key", "rsa-2048", "--ttl", "5m", "--rotate-at", "0.9"),
    )
    assert str(server["spiffe-id"]) == "spiffe://td.example/service/api-server"
    assert server["dns"] == ["a.example", "b.example"]
    assert server["ip"] == [ip_address("::1")]
    assert list(map(str, server["allow"])) == ["spiffe://td.example/a", "spiffe://td.example/b/**"]
    assert server["key"] is KeyAlgorithm.RSA_2048
    assert server["ttl"] == timedelta(minutes=5)


def test_an_issuing_ca_lives_four_times_as_long_as_any_leaf() -> None:
    demo = parsed("mesh-ca", *("--issuing-duration", "60s"), *seconds(5))
    assert demo["issuing-duration"] == timedelta(seconds=60)
    least = parsed("mesh-ca", "--issuing-duration", "20s", *seconds(5))
    assert least["issuing-duration"] == timedelta(seconds=20)
    long = parsed("mesh-ca", "--max-cert-duration", "365d")
    assert long["issuing-duration"] == timedelta(days=1460), "the default goes along"


def seconds(number: int) -> tuple[str, ...]:
    return ("--cert-duration", f"{number}s", "--max-cert-duration", f"{number}s")


def test_names_of_one_kind_stand_alone() -> None:
    assert parsed("mesh-server", "--dns", "a.example")["ip"] == []
    assert parsed("mesh-server", "--ip", "10.0.0.1")["dns"] == []


def test_two_services_do_not_share_their_lists() -> None:
    parsed("mesh-server", "--dns", "a.example", "--allow", "spiffe://mesh.local/a")
    assert parsed("mesh-server")["allow"] == []


@pytest.mark.parametrize("program", KINDS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "--nonsense not recognized; see twistd {} --help"),
        (["stray"], "'stray' is not an option"),
        (["--state-dir"], "--state-dir requires argument"),
        (["--log-format", "xml"], "--log-format is one of text, json"),
        (["--drain", "soon"], "'soon' is not a duration"),
        (["--drain", "-1s"], "not a duration"),
        (["--trust-domain", "Mesh.Local"], "lower-case"),
        (["--trust-domain", ""], "the trust domain is empty"),
        (["--trust-domain", "a\nb"], "'a\\\\nb'"),
    ],
)
def test_a_mistake_in_an_option_of_both_is_one_sentence(
    program: str, arguments: list[str], words: str
) -> None:
    assert words.format(program) in refusal(program, *arguments)


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("mesh-ca", ["--port", "1", "--listen", "2"], "--port and --listen say the same thing"),
        (
            "mesh-ca",
            ["--root-key", "ml-dsa65"],
            "'ml-dsa65' is none of them: did you mean ml-dsa-65?",
        ),
        ("mesh-ca", ["--leaf-key", "P256"], "--leaf-key is one of rsa-2048, rsa-4096"),
        ("mesh-ca", ["--root-key", "dsa"], "--root-key is one of rsa-2048, rsa-4096"),
        ("mesh-ca", ["--issuing-key", ""], "--issuing-key is one of"),
        ("mesh-ca", ["--issuing-key", "pkcs11:token=a?pin-value=1"], "whoever lists processes"),
        ("mesh-ca", ["--audit-key", "ec-p256"], "--audit-key is one of ed25519"),
        ("mesh-ca", ["--key-store", "files"], "--key-store takes a URI"),
        ("mesh-ca", ["--token-pin-fd", "x"], "the number of an open file descriptor"),
        ("mesh-ca", ["--token-pin-fd", "3", "--token-pin-file", "x"], "say the same thing"),
        ("mesh-ca", ["--jwt-key", "ed25519"], "--jwt-key is one of ec-p256, ec-p384, rsa-2048"),
        ("mesh-ca", ["--jwt-duration", "2h"], "--jwt-duration is at least 1s and at most"),
        ("mesh-ca", ["--max-jwt-duration", "25h"], "at most 24h"),
        ("mesh-ca", ["--jwt-key-duration", "3h"], "at least 4 times --max-jwt-duration, here 4h"),
        ("mesh-ca", ["--oidc", "unix:/x"], "--oidc-issuer https://HOST"),
        ("mesh-ca", ["--oidc-issuer", "https://x/"], "is no issuer"),
        ("mesh-ca", ["--cert-duration", "0s"], "at least 1s"),
        ("mesh-ca", ["--cert-duration", "25h"], "at most --max-cert-duration"),
        ("mesh-ca", ["--max-cert-duration", "366d"], "at most 365d"),
        ("mesh-ca", ["--max-cert-duration", "30m"], "at most --max-cert-duration"),
        ("mesh-ca", ["--cert-duration", "1h30m"], "not a duration"),
        ("mesh-ca", ["--issuing-duration", "95h"], "at least 4 times --max-cert-duration, here 4d"),
        ("mesh-ca", ["--issuing-duration", "0s"], "at least 4 times"),
        ("mesh-ca", ["--issuing-duration", "2000d"], "at most 1825d"),
        ("mesh-ca", ["--issuing-duration", "a year"], "not a duration"),
        ("mesh-ca", ["--key-passphrase-fd", "three"], "the number of an open file descriptor"),
        ("mesh-ca", ["--key-passphrase-fd", "-1"], "the number of an open file descriptor"),
        ("mesh-ca", ["--key-passphrase-fd", "9" * 50], "the number of an open file descriptor"),
        (
            "mesh-ca",
            ["--key-passphrase-fd", "3", "--key-passphrase-file", "x"],
            "say the same thing",
        ),
        ("mesh-ca", ["--insecure-http", "localhost:80"], "takes a port number"),
        ("mesh-ca", ["--insecure-http", "65536"], "takes a port number"),
        ("mesh-ca", ["--insecure-http", "9" * 5000], "takes a port number"),
        ("mesh-ca", ["--insecure-http", "\u0661"], "takes a port number"),
        ("mesh-agent", ["--write", "x"], "--spiffe-id is needed: who the files are for, like"),
        (
            "mesh-agent",
            ["--spiffe-id", "spiffe://mesh.local/x"],
            "--name or --write is needed",
        ),
        (
            "mesh-agent",
            ["--write", "x", "--spiffe-id", "spiffe://mesh.local/x", "--on-update", "no-such"],
            "there is no program 'no-such' in PATH",
        ),
        (
            "mesh-agent",
            ["--write", "x", "--spiffe-id", "spiffe://mesh.local/x", "--on-update-timeout", "9"],
            "not a duration",
        ),
        ("mesh-server", ["--spiffe-id", "spiffe://other/x"], "is not of --trust-domain mesh.local"),
        ("mesh-server", ["--spiffe-id", "api-server"], "begins with spiffe://"),
        (
            "mesh-server",
            ["--dns", "*.example"],
            "has a wildcard, which no SVID carries: name each host",
        ),
        ("mesh-server", ["--dns", "A.example"], "has capital letters: write a.example"),
        ("mesh-server", ["--ip", "localhost"], "'localhost' is no IP address"),
        ("mesh-server", ["--ip", "10.0.0.0/8"], "is no IP address"),
        ("mesh-server", ["--allow", "everybody"], "begins with spiffe://"),
        ("mesh-server", ["--allow", "spiffe://*/x"], "lower-case"),
        ("mesh-server", ["--key", "ed448"], "--key is one of"),
        ("mesh-server", ["--ttl", "1 hour"], "not a duration"),
        ("mesh-server", ["--rotate-at", "half"], "from 0.1 to 0.9, like 0.5"),
        ("mesh-server", ["--rotate-at", "nan"], "from 0.1 to 0.9"),
        ("mesh-agent", ["--name", "web-1"], "--name needs a CA at https://"),
        ("mesh-agent", ["--name", "Web 1"], "--name is 1 to 64 lower-case letters"),
        ("mesh-agent", ["--socket", "/tmp/x", "--write", "w"], "--spiffe-id is needed"),
        (
            "mesh-agent",
            ["--write", "w", "--spiffe-id", "spiffe://mesh.local/x", "--socket", "/tmp/x"],
            "--socket is for an agent that has a --name",
        ),
        (
            "mesh-agent",
            ["--name", "a", "--spiffe-id", "spiffe://mesh.local/x"],
            "an agent is spiffe://mesh.local/mesh/agent/a by its --name",
        ),
        (
            "mesh-agent",
            ["--name", "a", "--ca-url", "https://ca.test", "--on-update", "true"],
            "--on-update is for the files of --write",
        ),
        (
            "mesh-agent",
            ["--name", "a", "--ca-url", "https://ca.test", "--socket", f"/tmp/{'x' * 120}"],
            "too long for a unix socket",
        ),
        ("mesh-server", ["--rotate-at", "1"], "from 0.1 to 0.9"),
    ],
)
def test_a_mistake_in_an_option_is_one_sentence(
    program: str, arguments: list[str], words: str
) -> None:
    assert words in refusal(program, *arguments)


OPTIONS = [
    (program, name)
    for program, kind in KINDS.items()
    for name in [*(entry[0] for entry in (*ServiceOptions.optParameters, *kind.optParameters))]
] + [("mesh-server", name) for name in ("dns", "ip", "allow")]


@given(st.sampled_from(OPTIONS), st.text() | st.from_regex(r"[0-9]{1,9}[smhd]?", fullmatch=True))
@example(("mesh-ca", "insecure-http"), "9" * 5000)
@example(("mesh-server", "ip"), "\ud800")
@example(("mesh-ca", "cert-duration"), "999999999d")
@example(("mesh-server", "drain"), "999999999d")
def test_no_value_of_an_option_ends_in_a_traceback(option: tuple[str, str], value: str) -> None:
    program, name = option
    try:
        parsed(program, f"--{name}={value}")
    except SystemExit as refused:
        assert isinstance(refused.code, str)
        assert refused.code.isprintable()


@pytest.mark.parametrize("program", KINDS)
def test_help_is_no_mistake(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        parsed(program, "--help")
    assert not done.value.code
    assert "--state-dir" in capsys.readouterr().out


@pytest.mark.parametrize("program", KINDS)
def test_the_version_is_ours_and_not_twisteds(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        parsed(program, "--version")
    assert done.value.code == 0
    assert capsys.readouterr().out.startswith("twisted-mesh ")


# Under twistd.


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the log was chosen to be."""
    found: list[Any] = []
    monkeypatch.setattr(observe, "choose", lambda *choice: found.append(choice))
    return found


OURS = "twisted_mesh.observe.chosen"


@pytest.mark.parametrize("logfile", [None, "", "-"])
def test_in_the_foreground_the_log_goes_to_standard_output(
    chosen: list[Any], logfile: str | None
) -> None:
    twistd = {"nodaemon": 1, "logfile": logfile, "pidfile": "twistd.pid"}
    options = parsed("mesh-ca", "--log-format", "json", parent=twistd)
    assert chosen == [("mesh-ca", "json")]
    assert twistd["logger"] == OURS
    assert twistd["pidfile"] == options.pidfile == ""
    assert options.logs_to_stdout


def test_as_a_daemon_it_has_files_named_after_it(chosen: list[Any]) -> None:
    twistd = {"nodaemon": 0, "logfile": None, "pidfile": "twistd.pid"}
    options = parsed("mesh-server", parent=twistd)
    assert chosen == [("mesh-server", "text", str(Path.cwd() / "mesh-server.log"))]
    assert twistd["logger"] == OURS
    assert options.pidfile == str(Path.cwd() / "mesh-server.pid")
    assert twistd["pidfile"] == "", "twistd would not start beside one that was left behind"
    assert not options.logs_to_stdout


def test_a_logfile_and_a_pidfile_of_the_users_own_are_kept(chosen: list[Any]) -> None:
    twistd = {"nodaemon": 1, "logfile": "/var/log/mesh", "pidfile": "/run/mesh.pid"}
    options = parsed("mesh-ca", parent=twistd)
    assert chosen == [("mesh-ca", "text", "/var/log/mesh")]
    assert options.pidfile == "/run/mesh.pid"


@pytest.mark.parametrize("said", [{"logger": "my.logger"}, {"syslog": 1}])
def test_twistds_own_word_on_logging_counts(chosen: list[Any], said: dict[str, Any]) -> None:
    twistd = {"nodaemon": 1, "logfile": None, "pidfile": "twistd.pid", **said}
    parsed("mesh-ca", parent=twistd)
    assert chosen == []
    assert twistd.get("logger") == said.get("logger")


def test_without_twistd_nothing_of_it_is_touched(chosen: list[Any]) -> None:
    options = parsed("mesh-ca")
    assert chosen == []
    assert options.pidfile == ""
    assert options.status_pipe is None


def test_a_umask_never_takes_rights_from_the_owner() -> None:
    # Else the next start cannot open what this one made, for any user but root.
    before = os.umask(0o777)
    try:
        parsed("mesh-ca")
        assert os.umask(0o027) == 0o077
        parsed("mesh-ca")
        assert os.umask(0) == 0o027
    finally:
        os.umask(before)


def test_an_agent_on_its_cas_machine_need_not_be_told_where_that_is(tmp_path: Path) -> None:
    words = ("--name", "web-1", "--state-dir", str(tmp_path))
    assert "no CA has its state in" in refusal("mesh-agent", *words)
    root = tmp_path / "ca" / "root.crt"
    root.parent.mkdir()
    root.touch()
    made = parsed("mesh-agent", *words)
    assert (made["ca-url"], made["ca-file"]) == ("https://localhost:8443", str(root))
    told = parsed("mesh-agent", *words, "--ca-url", "https://ca.test", "--ca-file", "x")
    assert (told["ca-url"], told["ca-file"]) == ("https://ca.test", "x")
    assert "needs a CA at https://" in refusal(
        "mesh-agent", *words, "--ca-url", "unix:/run/ca.sock"
    )
