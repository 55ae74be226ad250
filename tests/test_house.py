"""The house itself: floors, packaging, lock files, nothing that one machine alone has."""

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
    assert len(tapnames) == 2
    assert tapnames <= programs(setup_cfg).keys()


def test_twisted_stays_a_package_of_twisted() -> None:
    assert list((ROOT / "twisted").rglob("__init__.py")) == []


def test_typed_packages_say_so() -> None:
    assert (ROOT / "pki" / "py.typed").is_file()
    assert (ROOT / "twisted_mesh" / "py.typed").is_file()


@pytest.mark.parametrize("tapname", ["mesh-ca", "mesh-server"])
def test_twistd_knows(tapname: str) -> None:
    listing = subprocess.run(
        [Path(sys.executable).with_name("twistd"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(rf"^\s+{tapname}\s", listing.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["core", "dev"])
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
