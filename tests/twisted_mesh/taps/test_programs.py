"""``mesh-ca …`` is ``twistd -n mesh-ca …``: whose each option is, and what is said of one that is nobody's."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import UsageError

from twisted.plugins import mesh_plugins  # type: ignore[attr-defined]
from twisted_mesh.taps import programs
from twisted_mesh.taps.programs import (
    CommandLine,
    ProcessOptions,
    mesh_agent,
    mesh_ca,
    mesh_ctlog,
    mesh_proxy,
    mesh_server,
    mesh_signer,
    mesh_witness,
)

MAKERS = {
    "mesh-agent": mesh_plugins.meshAgent,
    "mesh-ca": mesh_plugins.meshCA,
    "mesh-ctlog": mesh_plugins.meshCtLog,
    "mesh-proxy": mesh_plugins.meshProxy,
    "mesh-server": mesh_plugins.meshServer,
    "mesh-signer": mesh_plugins.meshSigner,
    "mesh-witness": mesh_plugins.meshWitness,
}
MAINS = {
    "mesh-agent": mesh_agent,
    "mesh-ca": mesh_ca,
    "mesh-ctlog": mesh_ctlog,
    "mesh-proxy": mesh_proxy,
    "mesh-server": mesh_server,
    "mesh-signer": mesh_signer,
    "mesh-witness": mesh_witness,
}


def read(*words: str, program: str = "mesh-ca") -> CommandLine:
    maker = MAKERS[program]
    return CommandLine.read(words, ProcessOptions(maker), maker.options())


@pytest.mark.parametrize(
    ("words", "process", "service"),
    [
        ("", "", ""),
        ("--port 0", "", "--port=0"),
        ("--port=0 --logfile=-", "--logfile=-", "--port=0"),
        ("--logfile - --port 0", "--logfile=-", "--port=0"),
        ("--port 0 --pidfile ca.pid", "--pidfile=ca.pid", "--port=0"),
        ("-n -l- -u 7 -d/tmp", "--nodaemon --logfile=- --uid=7 --rundir=/tmp", ""),
        ("-nbl ca.log --port 0", "--nodaemon --debug --logfile=ca.log", "--port=0"),
        ("-nh", "--nodaemon", "--help"),
        ("--logfile --port --port --logfile", "--logfile=--port", "--port=--logfile"),
        ("--uid -1 --port -n", "--uid=-1", "--port=-n"),
        ("--logfile=a=b --admin=c=d", "--logfile=a=b", "--admin=c=d"),
        ("--logfile= --listen=", "--logfile=", "--listen="),
        ("--pid x --trust y", "--pidfile=x", "--trust-domain=y"),
        ("--version --help", "", "--version --help"),
        ("--syslog=yes", "--syslog=yes", ""),
        ("--port 0 -- --logfile x", "", "--port=0 -- --logfile x"),
        ("--port 0 - --logfile x", "", "--port=0 - --logfile x"),
        ("stray --logfile x", "", "stray --logfile x"),
        ("--nonsense --logfile x", "--logfile=x", "--nonsense"),
        ("--nonsense=1 -n", "--nodaemon", "--nonsense=1"),
        ("-z -n", "--nodaemon", "-z"),
        ("--python x.py", "", "--python x.py"),
        ("-y -o -e", "", "-y -o -e"),
        ("--file=a --source=b --no_save", "", "--file=a --source=b --no_save"),
    ],
)
def test_each_option_goes_to_whom_it_belongs(words: str, process: str, service: str) -> None:
    line = read(*words.split())
    assert (line.process, line.service) == (process.split(), service.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--logfile", "option --logfile requires argument"),
        ("--port 0 -l", "option --logfile requires argument"),
        ("--port", "option --port requires argument"),
        ("--log json", "--log may be any of --log-format, --log-level, --logfile, --logger"),
    ],
)
def test_what_cannot_be_told_apart_is_said(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}$"):
        read(*words.split())


@pytest.mark.parametrize("program", MAKERS)
def test_no_name_means_two_things(program: str) -> None:
    process, service = ProcessOptions(MAKERS[program]), MAKERS[program].options()
    long = [{name.rstrip("=") for name in options.longOpt} for options in (process, service)]
    short = [set(options.shortOpt) - {":"} for options in (process, service)]
    assert not long[0] & long[1]
    assert not short[0] & short[1]


VALUES = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=8)


@st.composite
def pieces(draw: st.DrawFn) -> tuple[bool, list[str], str]:
    """Whether it is the process's, the words, and how the one that it belongs to gets it."""
    is_of_process = draw(st.booleans())
    options = ProcessOptions(MAKERS["mesh-ca"]) if is_of_process else MAKERS["mesh-ca"].options()
    name = draw(st.sampled_from(sorted(options.longOpt)))
    if not name.endswith("="):
        return is_of_process, [f"--{name}"], f"--{name}"
    value = draw(VALUES)
    words = draw(st.sampled_from([[f"--{name}{value}"], [f"--{name[:-1]}", value]]))
    return is_of_process, words, f"--{name}{value}"


@given(st.lists(pieces(), max_size=6))
def test_no_word_is_lost_whatever_the_order(drawn: list[tuple[bool, list[str], str]]) -> None:
    line = read(*(word for _, words, _ in drawn for word in words))
    assert line.process == [said for is_of_process, _, said in drawn if is_of_process]
    assert line.service == [said for is_of_process, _, said in drawn if not is_of_process]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been run."""
    configs: list[Any] = []
    monkeypatch.setattr(programs, "runApp", configs.append)
    return configs


@pytest.mark.parametrize("program", MAKERS)
def test_it_is_twistd_in_the_foreground_with_that_service(
    program: str, started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def look(*_: object) -> None:
        raise AssertionError("the list of plugins is not looked at")

    monkeypatch.setattr("twisted.plugin.getPlugins", look)
    monkeypatch.setattr("twisted.application.app.ServerOptions._getPlugins", staticmethod(look))
    words = ["--state-dir", str(tmp_path), "--pidfile", "x.pid"]
    has_trust_domain = program not in ("mesh-ctlog", "mesh-witness")
    if has_trust_domain:
        words += ["--trust-domain", "mesh.test"]
    if program == "mesh-agent":
        words += ["--write", "files", "--spiffe-id", "spiffe://mesh.test/service/web"]
    if program == "mesh-witness":
        words += ["--ct-logs", "logs.json"]
    if program == "mesh-proxy":
        words += ["--mode", "server", "--listen", "0", "--target", "127.0.0.1:1", "--allow-all"]
    assert MAINS[program](words) == 0
    (config,) = started
    assert config["nodaemon"]
    assert config.subOptions.pidfile.endswith("/x.pid")
    assert config.subCommand == program
    assert config.loadedPlugins[program] is MAKERS[program]
    assert config.subOptions["state-dir"] == tmp_path
    if has_trust_domain:
        assert str(config.subOptions["trust-domain"]) == "mesh.test"


@pytest.mark.parametrize("program", MAKERS)
@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_shows_the_options_of_both(
    program: str, asked: str, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert MAINS[program](["--port", "x", asked] if program == "mesh-ca" else [asked]) == 0
    shown = capsys.readouterr().out
    assert re.match(rf"Usage: {program} \[options\]\n\nExamples?: {program} -", shown)
    assert "twistd -n" not in shown
    for option in ("--state-dir=", "--logfile=", "--pidfile=", "-h, --help"):
        assert shown.count(f"{option} ") == 1
    for option in ("--python", "--no_save", "Commands:", "portforward"):
        assert option not in shown
    assert not started


@pytest.mark.parametrize("program", MAKERS)
@pytest.mark.parametrize(
    ("asked", "told"), [("-h", "--state-dir="), ("--version", "twisted-mesh ")]
)
def test_so_does_the_service_under_twistd(
    program: str, asked: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        MAKERS[program].options().parseOptions([asked])
    assert not ended.value.code
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("program", MAKERS)
def test_it_says_its_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        MAINS[program](["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"twisted-mesh {version('twisted-mesh')}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--nonsense", "option --nonsense not recognized; see mesh-ca --help"),
        ("--python x.py", "option --python not recognized; see mesh-ca --help"),
        ("stray", "'stray' is not an option; see mesh-ca --help"),
        ("--port 1 --listen 2", "--port and --listen say the same thing"),
        (
            "--log json",
            "--log may be any of --log-format, --log-level, --logfile, --logger; see mesh-ca --help",
        ),
        ("--umask 9", "with base 8: '9'; see mesh-ca --help"),
        ("--uid nobody-of-that-name", "name not found: 'nobody-of-that-name'"),
        ("--reactor none", "The specified reactor does not exist: 'none'."),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    words: str, said: str, started: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        status, sentence = mesh_ca(words.split()), capfd.readouterr().err
    except SystemExit as ended:  # the interpreter prints that, and ends with 1
        status, sentence = 1, f"{ended.code}\n"
    assert status == 1
    assert sentence.startswith("mesh-ca: ")
    assert said in sentence
    assert sentence.count("\n") == 1
    assert not started


def test_a_process_that_cannot_be_as_it_should_is_one_sentence(tmp_path: Path) -> None:
    run = "import sys; from twisted_mesh.taps.programs import mesh_ca; sys.exit(mesh_ca())"
    words = ("--rundir", "/nowhere", "--state-dir", tmp_path)
    done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "mesh-ca: No such file or directory (/nowhere)\n")


def test_the_reactor_may_still_be_chosen() -> None:
    ask = (
        "import sys, json; from twisted_mesh.taps import programs;"
        "programs.runApp = lambda config: print(json.dumps(type(sys.modules['twisted.internet.reactor']).__name__));"
        "programs.mesh_ca(['--port', '0', '--reactor', 'poll'])"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == "PollReactor"
