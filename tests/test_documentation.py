"""The documents say what is: options, modules, routes, codes and links are held against the programs."""

import ast
import configparser
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

from pki.codes import Code
from tests.measuring import MEASURED
from tests.running import run
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.ca.meters import REQUEST_CODES

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = (ROOT / "docs" / "COMMANDS.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")

FRONTS = "mesh-ca, mesh-server, mesh-agent, mesh-proxy"
SIGNER = BIN / "mesh-signer"
#: How each program is asked for its options, and the section of COMMANDS.md that explains them.
PROGRAMS: dict[str, tuple[list[str | Path], ...]] = {
    "twistd mesh-ca": ([BIN / "twistd", "mesh-ca"],),
    "twistd mesh-server": ([BIN / "twistd", "mesh-server"],),
    "twistd mesh-agent": ([BIN / "twistd", "mesh-agent"],),
    "twistd mesh-proxy": ([BIN / "twistd", "mesh-proxy"],),
    "twistd mesh-signer": (
        [BIN / "twistd", "mesh-signer"],
        *(
            [SIGNER, *command.split()]
            for command in ("keys", "approve", "adopt", "listed", "log verify")
        ),
    ),
    "twistd mesh-ctlog": ([BIN / "twistd", "mesh-ctlog"],),
    "twistd mesh-witness": ([BIN / "twistd", "mesh-witness"],),
    FRONTS: tuple([BIN / name] for name in ("mesh-ca", "mesh-server", "mesh-agent", "mesh-proxy")),
    "mesh-client": ([sys.executable, ROOT / "bin" / "mesh-client"],),
    "mesh-ctl": tuple(
        [sys.executable, ROOT / "bin" / "mesh-ctl", *command.split()]
        for command in (
            *("", "cert", "cert list", "cert show", "cert revoke", "cert export"),
            *("audit", "audit verify", "audit show", "audit export"),
            *("ca root", "ca root status", "ca root prepare", "ca root activate", "ca root retire"),
            *("ca root revert", "ca root distrust"),
            *("ca", "ca show", "ca detach-root", "ca revoke-issuing", "doctor", "why"),
            *("ca keys", "ca rotate-issuing"),
            *("ca root offline", "ca root sign", "ca root csr", "ca root install"),
            *("token", "token create", "token list", "token revoke"),
            *("entry", "entry create", "entry list", "entry show", "entry delete"),
            *("key", "key block", "key unblock", "key list"),
            *("federation", "federation add", "federation list", "federation show"),
            *("federation refresh", "federation remove"),
            *("jwt", "jwt list", "jwt rotate", "jwt retire"),
            *("policy", "policy check", "policy test", "policy explain"),
            *("policy show", "policy reload", "policy withdraw", "policy dry-run"),
            *("agent", "agent list", "agent allow", "agent alias", "agent claims", "agent evict"),
            *("agent ban", "agent unban", "agent token", "agent token create"),
            *("ct", "ct watch", "ct prove", "ct search", "ct verify", "ct status"),
            *("ct logs", "ct logs show", "ct logs add", "ct logs sign", "ct logs retire"),
            *("backup", "backup create", "backup show", "backup restore"),
        )
    ),
    "pki-inspect": (
        [sys.executable, ROOT / "bin" / "pki-inspect"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "show"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "verify"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "lint"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "probe"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "fingerprint"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "needs-renewal"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "match"],
        [sys.executable, ROOT / "bin" / "pki-inspect", "explain"],
    ),
}
#: Options of other programs that the documents speak of.
FOREIGN = {
    "twistd": {"--logfile", "--pidfile", "--path"},
    "curl": {"--cacert", "--cert", "--key", "--json", "--unix-socket"},
    "envoy": {"--concurrency", "--drain-time-s"},
    "ghostunnel": {
        *("--allow-cn", "--allow-ou", "--allow-policy", "--allow-query", "--allow-spki-pin"),
        *("--allow-uri", "--auto-acme-cert", "--cacert", "--cert", "--connect-proxy"),
        *("--disable-authentication", "--enable-pprof", "--enable-shutdown", "--key"),
        *("--keychain-identity", "--keystore", "--max-concurrent-conns", "--metrics-graphite"),
        *("--metrics-prefix", "--metrics-url", "--override-server-name", "--pkcs"),
        *("--proxy", "--proxy-protocol-mode", "--quiet", "--shutdown-timeout", "--skip-resolve"),
        "--storepass",
        *("--target-status", "--timed-reload", "--use-workload-api-addr", "--verify-cn"),
        *("--verify-ou", "--verify-policy", "--verify-spki-pin", "--verify-uri"),
    },
    "kubectl": {"--raw"},
    "docker": {"--cgroup-parent"},
    "podman": {"--cgroups"},
    "pkcs11-tool": {
        *("--list-mechanisms", "--list-objects", "--delete-object", "--login", "--type", "--id"),
    },
    "step": {"--daemon"},
    "tests.bench": {"--again", "--quick"},
}


@cache
def options_of(*command: str | Path) -> frozenset[str]:
    # Each program once as a process of its own.
    shown = run(*command, "--help", cwd=ROOT, env={}, real=len(command) < 3)
    assert shown.returncode == 0, shown.stderr
    # The options only: examples, before or after them, may call other programs.
    rest = shown.stdout.partition("Options:")[2].partition("Examples:")[0]
    return frozenset(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)", rest, re.MULTILINE))


def options(program: str) -> frozenset[str]:
    if program == FRONTS:  # what they have besides
        named = frozenset[str]().union(*(options_of(*command) for command in PROGRAMS[FRONTS]))
        theirs = (options(program) for program in PROGRAMS if program.startswith("twistd "))
        return named.difference(*theirs)
    return frozenset().union(*(options_of(*command) for command in PROGRAMS[program]))


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_column(text: str) -> Iterator[str]:
    """The code spans in the first column of each table."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield from _SPAN.findall(line.split("|")[1])


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_is_in_the_reference(program: str) -> None:
    told = set(first_column(sections(COMMANDS)[program]))
    missing = options(program) - told
    assert not missing


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_reference_tells_no_option_that_is_not(program: str) -> None:
    section = sections(COMMANDS)[program]
    told = {option for span in _SPAN.findall(section) for option in _OPTION.findall(span)}
    assert told <= options(program)


@frozen
class Command:
    """A line that somebody is told to type."""

    document: str
    line: str


def commands() -> Iterator[Command]:
    for document in DOCUMENTS:
        for language, block in _FENCE.findall(document.read_text()):
            if language == "console":
                for line in block.splitlines():
                    if line.startswith("$ "):
                        yield Command(document.name, line[2:])


def test_the_readme_has_commands_and_begins_with_make() -> None:
    lines = [command.line for command in commands() if command.document == "README.md"]
    assert lines[:2] == ["make demo", "make test"]
    for typed in (
        ".venv/bin/twistd -n mesh-ca",
        ".venv/bin/twistd -n mesh-server",
        "bin/mesh-client",
    ):
        assert typed in lines


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: command.line[:60])
def test_what_is_typed_exists(command: Command) -> None:
    words = [word for word in shlex.split(command.line) if word not in (";", "|")]
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[0] == ".venv/bin/twistd":
        assert words[1] == "-n"
        assert set(_OPTION.findall(" ".join(words[3:]))) <= options(f"twistd {words[2]}")
    elif words[0].startswith("bin/"):
        assert (ROOT / words[0]).is_file()
        used = {word for word in words if word.startswith("--")}
        known = options(words[0].removeprefix("bin/"))
        assert used <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_option_is_made_up(document: Path) -> None:
    known = set().union(*map(options, PROGRAMS), *FOREIGN.values())
    told = {
        option for span in _SPAN.findall(document.read_text()) for option in _OPTION.findall(span)
    }
    assert told <= known


def anchors(document: Path) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_of_the_project_that_is_named_exists(document: Path) -> None:
    for span in _SPAN.findall(document.read_text()):
        if re.fullmatch(r"(tests|docs|bin|twisted|requirements)/[\w./-]*", span):
            assert (ROOT / span).exists(), span


def test_every_document_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"(docs/{document.name})" in readme for document in DOCUMENTS[1:])


def packages(top: str) -> set[str]:
    """What stands on the floors: packages and lone modules of ``top``, and packages within those."""
    root = ROOT / top
    inner = {path.parent.relative_to(root) for path in root.rglob("__init__.py")} - {Path()}
    alone = {path.relative_to(root).with_suffix("") for path in root.glob("*.py")}
    return {".".join(path.parts) for path in inner | alone} - {"__init__"}


def package_table(top: str) -> list[str]:
    found = re.search(rf"^### {top}, from the top\n(.*?)(?=^##)", ARCHITECTURE, re.M | re.S)
    assert found
    return list(first_column(found[1]))


@pytest.mark.parametrize("top", ["pki", "twisted_mesh"])
def test_the_architecture_names_every_package_once(top: str) -> None:
    # A package that has no more than one parent's business is told with it.
    told, there = package_table(top), packages(top)
    assert sorted(told) == sorted(there - {"cli.ctl"})


@pytest.mark.parametrize("contract, top", [("toolkit", "pki"), ("mesh", "twisted_mesh")])
def test_the_architecture_has_the_floors_of_setup_cfg(contract: str, top: str) -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    layers = config[f"importlinter:contract:{contract}-floors"]["layers"].strip().splitlines()
    floor = {name: n for n, layer in enumerate(layers) for name in re.findall(r"[\w.]+", layer)}
    order = [floor[name.partition(".")[0]] for name in package_table(top)]
    assert order == sorted(order)


def test_every_module_says_in_its_first_line_what_it_is_for() -> None:
    for top in ("pki", "twisted_mesh"):
        for path in (ROOT / top).rglob("*.py"):
            said = ast.get_docstring(ast.parse(path.read_text()))
            assert said, path
            assert len(said.splitlines()[0].split()) > 2, path


def test_each_dependency_has_its_reason() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    wanted = "\n".join((config["options"]["install_requires"], *extras.values()))
    named = {re.split(r"[<>=]", line)[0] for line in wanted.split()}
    told = set(first_column(sections(ARCHITECTURE)["Dependencies"]))
    assert told == named


def rows(text: str) -> Iterator[tuple[str, ...]]:
    """The rows of a document's tables, without the heads and what is under them."""
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split(" | "))
        if line.startswith("| `"):
            yield cells


def test_the_reference_has_the_catalogue_of_codes() -> None:
    told = list(rows(sections(COMMANDS)["Codes"]))
    assert told == [(f"`{code}`", code.meaning, code.remedy) for code in Code]


def test_the_answers_of_the_api_have_codes_of_the_catalogue() -> None:
    table = sections(COMMANDS)["The CA's API"].partition("| status | `code` | when |")[2]
    told = {span for line in table.splitlines() if line.startswith("| ") for span in second(line)}
    assert len(told) > 20
    assert told <= set(Code)
    # All but the answer of /readyz, which is no refusal, are told apart in the CA's metrics.
    assert told - {Code.NOT_READY} <= set(REQUEST_CODES)


def second(line: str) -> list[str]:
    """The code spans in the second column."""
    return _SPAN.findall(line.split("|")[2])


def test_every_code_is_one_that_a_program_can_give() -> None:
    used = {
        node.attr
        for top in ("pki", "twisted_mesh")
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "Code"
    }
    assert set(Code.__members__) <= used


def test_every_route_is_in_the_reference() -> None:
    told = set(first_column(sections(COMMANDS)["The CA's API"]))
    assert {f"{method} {path}" for method, path in ROUTES} <= told


def test_every_metric_is_in_the_reference() -> None:
    told = {span.partition("{")[0] for span in first_column(sections(COMMANDS)["Metrics"])}
    assert told == MEASURED


def test_the_events_of_the_reference_are_logged() -> None:
    told = set(first_column(sections(COMMANDS)["Log"])) - {"event"}
    logged = {
        name
        for path in (ROOT / "twisted_mesh").rglob("*.py")
        for name in re.findall(r'event="([a-z-]+)"', path.read_text())
    }
    assert told <= logged
    assert len(told) > 10
