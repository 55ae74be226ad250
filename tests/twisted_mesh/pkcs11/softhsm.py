"""Tokens for tests: SoftHSM's, with files of their own, and a module before it that misbehaves when it is told to."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from attrs import define

from tests.tools import IN_CI, require_tool

PIN, SO_PIN = "1234", "security officer"
_HERE = Path(__file__).parent
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def require_module() -> str:
    """SoftHSM's; without it the test is skipped, or in CI fails."""
    require_tool("softhsm2-util")
    found = next((path for path in _MODULES if os.path.exists(path)), None)
    if found is None:
        (pytest.fail if IN_CI else pytest.skip)("libsofthsm2.so is nowhere that is looked at")
    return found


@define
class SoftHsm:
    """A directory of tokens. It is the one of this process, and of those that it starts, within :meth:`here`."""

    directory: Path
    module: str

    @classmethod
    def made(cls, directory: Path, *labels: str) -> "SoftHsm":
        """With a token of each label."""
        found = cls(directory, require_module())
        found.tokens.mkdir(parents=True)
        found.configuration.write_text(
            f"directories.tokendir = {found.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        (directory / "pin").write_text(f"{PIN}\n")
        (directory / "pin").chmod(0o600)
        for label in labels:
            found.add(label)
        return found

    @property
    def tokens(self) -> Path:
        return self.directory / "tokens"

    @property
    def configuration(self) -> Path:
        return self.directory / "softhsm2.conf"

    @property
    def pin(self) -> Path:
        return self.directory / "pin"

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.configuration)}

    def add(self, label: str) -> None:
        """Another token."""
        options = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN]
        self.run("softhsm2-util", *options)

    def copied(self, directory: Path) -> "SoftHsm":
        """The same tokens elsewhere: to make one takes a tenth of a second."""
        shutil.copytree(self.directory, directory)
        found = SoftHsm(directory, self.module)
        text = found.configuration.read_text()
        found.configuration.write_text(text.replace(str(self.directory), str(directory)))
        return found

    def uri(self, label: str = "mesh", query: str = "", module: str | None = None) -> str:
        return f"pkcs11:token={label}?module-path={module or self.module}{query}"

    def run(self, program: str, *arguments: str) -> str:
        """What a program of others prints that reads these tokens."""
        done = subprocess.run(
            [require_tool(program), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tool(self, *arguments: str, label: str = "mesh") -> str:
        """What OpenSC's pkcs11-tool prints of a token, logged in."""
        token = ("--module", self.module, "--token-label", label, "--login", "--pin", PIN)
        return self.run("pkcs11-tool", *token, *arguments)

    def take_out(self) -> None:
        """All tokens."""
        self.tokens.rename(self.directory / "elsewhere")
        self.tokens.mkdir()

    def put_back(self) -> None:
        self.tokens.rmdir()
        (self.directory / "elsewhere").rename(self.tokens)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Where this process finds them."""
        with patch.dict(os.environ, self.environment):
            yield


@define
class Shim:
    """The module that misbehaves."""

    module: str
    directory: Path
    behind: str

    @classmethod
    def built(cls, directory: Path) -> str:
        """Its path; skipped where there is no compiler."""
        compiler = require_tool("cc")
        library = directory / "shim.so"
        flags = [
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-cast-function-type",
        ]
        subprocess.run(
            [compiler, *flags, "-o", library, _HERE / "shim.c", "-ldl"], check=True, timeout=60
        )
        return str(library)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MESH_SHIM_MODULE": self.behind,
            "MESH_SHIM_ACTS": str(self.directory / "acts"),
            "MESH_SHIM_CALLS": str(self.directory / "calls"),
        }

    def does(self, *acts: str) -> None:
        """From now on: ``C_Sign sleep 10``."""
        fresh = self.directory / "acts.new"
        fresh.write_text("".join(f"{act}\n" for act in acts))
        fresh.rename(self.directory / "acts")

    def calls(self, function: str) -> int:
        """How often it was called."""
        path = self.directory / "calls"
        return path.read_text().splitlines().count(function) if path.exists() else 0

    @contextmanager
    def here(self) -> Iterator[None]:
        with patch.dict(os.environ, self.environment):
            yield
