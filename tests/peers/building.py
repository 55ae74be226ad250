"""The peers that are written with go-spiffe and java-spiffe, built once for all runs of tests, outside the checkout."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

_SOURCES = Path(__file__).with_name("go")
#: What go-spiffe asks for. Debian's Go is older: there, and where there is none, it is done without, in CI too.
_LEAST = (1, 24)


def _digest(sources: Path) -> str:
    files = sorted(path for path in sources.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _home() -> Path:
    home = Path(tempfile.gettempdir()) / f"mesh-peers-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    assert home.stat().st_uid == os.getuid(), f"{home} is another user's"
    return home


def _run(
    words: Sequence[str], where: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=where, env=env, capture_output=True, text=True, check=False)


def _program(name: str) -> Path:
    return _home() / f"{name}-{_digest(_SOURCES.with_name(name))}"


def is_built(name: str) -> bool:
    """Whether the program in that directory is there from an earlier time."""
    return _program(name).exists()


@cache
def go_peer(name: str = "go", what: str = "go-spiffe") -> Path:
    """The program in that directory, or a skip with the reason."""
    sources = _SOURCES.with_name(name)
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed: the peer is built with Go 1.24 or later")
    env = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    told = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, env=env)
    version = re.match(r"go(\d+)\.(\d+)", told.stdout)
    if version is None or tuple(map(int, version.groups())) < _LEAST:
        pytest.skip(f"the peer is built with Go 1.24 or later, and this is {told.stdout.strip()}")
    program = _program(name)
    if not program.exists():
        made = program.with_suffix(f".{os.getpid()}")
        if _run((go, "mod", "download"), sources, env).returncode:
            pytest.skip(f"{what} cannot be fetched from here")
        built = _run((go, "build", "-buildvcs=false", "-o", str(made), "."), sources, env)
        assert built.returncode == 0, built.stderr
        made.replace(program)
    return program


def step_peer() -> Path:
    """What signs CSRs as step-ca does."""
    return go_peer("step", "step-ca's library")


@cache
def issuer_peer() -> tuple[str, ...]:
    """The words that start the issuer of OpenID Connect on Node, or a skip with the reason."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the issuer is a package of npm's")
    sources = _SOURCES.with_name("node")
    home = _home() / f"node-{_digest(sources)}"
    if not home.exists():
        made = home.with_suffix(f".{os.getpid()}")
        shutil.copytree(sources, made)
        if _run(("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"), made).returncode:
            pytest.skip("oidc-provider cannot be fetched from here")
        made.rename(home)
    return "node", str(home / "issuer.mjs")


@cache
def java_peer() -> tuple[str, ...]:
    """The words that start the peer written with java-spiffe, or a skip with the reason."""
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the peer is built with Maven and a JDK")
    sources = _SOURCES.with_name("java")
    digest = _digest(sources)
    home = _home() / f"java-{digest}"
    if not home.exists():
        made = home.with_suffix(f".{os.getpid()}")
        words = ("mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={made}/lib")
        fetched = _run(words, sources)
        if fetched.returncode:
            pytest.skip("java-spiffe cannot be fetched from here")
        built = _run(
            ("javac", "-cp", f"{made}/lib/*", "-d", str(made), str(sources / "Peer.java")), sources
        )
        assert built.returncode == 0, built.stderr
        made.rename(home)
    # Little heap, and the quickest start: it lives for seconds.
    return "java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", f"{home}:{home}/lib/*", "Peer"
