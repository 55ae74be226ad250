"""The house itself: floors, packaging, lock files, nothing that one machine alone has."""

import ast
import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from twisted.application.service import ServiceMaker

from tests.tools import require_tool

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


def project_files() -> Iterator[Path]:
    """Every file that is, or would be, committed."""
    git = require_tool("git")
    listing = subprocess.run(
        [git, "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield path


def test_every_import_goes_down_the_floors() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_setup_cfg_names_every_package_on_disk(setup_cfg: configparser.ConfigParser) -> None:
    named = set(setup_cfg["options"]["packages"].split())
    on_disk = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for top in ("pki", "twisted_mesh")
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert named == on_disk | {"twisted.plugins"}


def programs(setup_cfg: configparser.ConfigParser) -> dict[str, str]:
    """What an installation puts on the PATH, and the function that it calls, as ``module:function``."""
    lines = setup_cfg["options.entry_points"]["console_scripts"].strip().splitlines()
    return {
        name.strip(): function.strip() for name, _, function in (x.partition("=") for x in lines)
    }


def test_every_program_of_an_installation_is_a_function(
    setup_cfg: configparser.ConfigParser,
) -> None:
    for function in programs(setup_cfg).values():
        module, _, name = function.partition(":")
        assert callable(getattr(import_module(module), name))


def test_every_program_in_bin_is_installed_too(setup_cfg: configparser.ConfigParser) -> None:
    in_bin = [path for path in (ROOT / "bin").iterdir() if path.is_file() and not path.suffix]
    installed = programs(setup_cfg)
    for path in in_bin:
        module, _, name = installed[path.name].partition(":")
        assert f"from {module} import {name}\n" in path.read_text()
        assert os.access(path, os.X_OK)
    # Two files of one name would be written over each other.
    assert "scripts" not in setup_cfg["options"]


def test_every_plugin_of_twistd_is_a_program_too(setup_cfg: configparser.ConfigParser) -> None:
    plugins = import_module("twisted.plugins.mesh_plugins")
    tapnames = {v.tapname for v in vars(plugins).values() if isinstance(v, ServiceMaker)}
    assert len(tapnames) == 7
    assert tapnames <= programs(setup_cfg).keys()


def test_twisted_stays_a_package_of_twisted() -> None:
    assert list((ROOT / "twisted").rglob("__init__.py")) == []


def test_typed_packages_say_so() -> None:
    assert (ROOT / "pki" / "py.typed").is_file()
    assert (ROOT / "twisted_mesh" / "py.typed").is_file()


@pytest.mark.parametrize(
    "tapname",
    [
        *("mesh-agent", "mesh-ca", "mesh-ctlog", "mesh-proxy", "mesh-server", "mesh-signer"),
        "mesh-witness",
    ],
)
def test_twistd_knows(tapname: str) -> None:
    listing = subprocess.run(
        [Path(sys.executable).with_name("twistd"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(rf"^\s+{tapname}\s", listing.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["core", "dev", "recipes"])
def test_every_locked_package_is_pinned_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(pins) > 20
    for pin in pins:
        assert re.match(r"[a-z0-9.-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", pin), pin


def test_the_development_lock_contains_the_core_lock() -> None:
    core, dev = (
        set(
            re.findall(
                r"^[a-z0-9.-]+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE
            )
        )
        for name in ("core.lock", "dev.lock")
    )
    assert core <= dev


@pytest.mark.parametrize(
    ("names", "others"),
    [
        ((b"ed25519",), {"pki/keys/ed25519.py", "pki/audit/log.py", "pki/ct/tree_head.py"}),
        # Files of others are shown by whatever object identifiers are in them.
        (
            (b"ml-dsa", b"mldsa", b"ml_dsa"),
            {
                "pki/keys/mldsa.py",
                "pki/inspect/oid_names.py",
                "twisted_mesh/taps/ca_options.py",  # --bundle-ml-dsa
                "twisted_mesh/taps/ca_assembly.py",
            },
        ),
    ],
)
def test_a_key_algorithm_is_known_to_the_table_and_its_own_module_alone(
    names: tuple[bytes, ...], others: set[str]
) -> None:
    """Ed25519 was added to see what it takes. The audit log's own key, and a witness's, is one whatever CAs sign by."""
    knows = {
        str(path.relative_to(ROOT))
        for top in ("pki", "twisted_mesh", "twisted", "bin")
        for path in (ROOT / top).rglob("*")
        if path.suffix != ".pyc" and path.is_file()
        if any(name in path.read_bytes().lower() for name in names)
    }
    assert knows == others | {"pki/keys/algorithm.py"}


def test_no_file_depends_on_the_machine_it_was_written_on() -> None:
    # Spelled apart so that this file does not find itself.
    strangers = ["../" + "shared", "/work/" + "main", "pypi" + ".org", "files.python" + "hosted"]
    found = {
        f"{path.relative_to(ROOT)}: {stranger}"
        for path in project_files()
        for stranger in strangers
        if stranger.encode() in path.read_bytes()
    }
    assert not found


def test_lock_files_name_no_place_to_fetch_from() -> None:
    place = re.compile(r"://|--(extra-)?index-url|--find-links|^-[ief] | /\w", re.MULTILINE)
    for lock in (ROOT / "requirements").glob("*.lock"):
        assert not place.search(lock.read_text()), lock


# No object is changed from outside once it is built: what it needs it is given, and what is known later it is told.

#: Where that holds: the CA, and what puts it together.
BUILT = (ROOT / "twisted_mesh" / "ca", ROOT / "twisted_mesh" / "taps")
#: What looks like it and is not, each with its reason.
UNBUILT = {
    "twisted_mesh/taps/early_port.py: port.doRead",  # Twisted's, which has no other way to be told how many
    "twisted_mesh/taps/early_port.py: port.numberAccepts",
    "twisted_mesh/taps/programs.py: line.service",  # a class method makes an instance of its own class
}
_CHANGES = {"append", "extend", "insert", "add", "update", "setdefault"}


def records_of(module: ast.Module) -> set[str]:
    """The fields of a module's private classes: records of its own, which nobody else has."""
    return {
        statement.target.id
        for found in ast.walk(module)
        if isinstance(found, ast.ClassDef) and found.name.startswith("_")
        for statement in found.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def reaches_in(target: ast.expr, records: set[str]) -> bool:
    """Whether that is an attribute of an object other than the one whose method it stands in."""
    if not isinstance(target, ast.Attribute) or target.attr in records:
        return False
    return not (isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"))


def is_poke(node: ast.AST, records: set[str]) -> bool:
    """Whether it writes into an object that is built already: an attribute of it, or a collection that it has."""
    if isinstance(node, ast.Attribute):
        return not isinstance(node.ctx, ast.Load) and reaches_in(node, records)
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    changes = isinstance(called, ast.Attribute) and called.attr in _CHANGES
    return ast.unparse(called).endswith("setattr") or (
        changes and reaches_in(called.value, records)
    )


def pokes(module: ast.Module) -> list[ast.expr]:
    """Whatever of that is in a module."""
    records = records_of(module)
    return [node for node in ast.walk(module) if is_poke(node, records)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("self.x = 1", 0),
        ("ca.url = 1", 1),
        ("self.ca.url: str = 1", 1),
        ("a, self.ca.url = 1, 2", 1),
        ("del self.ca.url", 1),
        ("ca.n += 1", 1),
        ("ca.hears.append(1)", 1),
        ("self.hears.append(1)", 0),
        ("setattr(ca, 'url', 1)", 1),
        ("class _Kept:\n    value: int\nkept.value = 1", 0),
    ],
)
def test_a_poke_is_recognised(text: str, count: int) -> None:
    assert len(pokes(ast.parse(text))) == count


def test_nobody_reaches_into_an_object_that_is_built() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {ast.unparse(poke)}"
        for package in BUILT
        for path in package.rglob("*.py")
        for poke in pokes(ast.parse(path.read_text()))
    }
    assert found == UNBUILT


#: Where what an object shows of itself counts: all of it is loaded before a CA is ready.
QUIET = (ROOT / "pki", *(ROOT / "twisted_mesh" / name for name in ("ca", "identity", "stores")))


def test_what_is_only_itself_shows_no_fields() -> None:
    # attrs writes more code for that than for all else of a class, and compiles it at each start.
    shows = re.compile(r"^@(?:define|frozen)\(eq=False(?!, repr=False)", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for directory in QUIET
        for path in directory.rglob("*.py")
        if shows.search(path.read_text())
    }
    assert not found
