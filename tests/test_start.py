"""What each program loads before it does its work: by the modules that are there, since times are the machine's."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pki.svid.x509svid import certificates_pem
from tests.authorities import mesh
from tests.running import free_port
from tests.twisted_mesh.api.test_blocking_client import answering, says

_TELLING = """
import json, os, sys
from twisted_mesh import entry
told, sys.stdout = sys.stdout, open(os.devnull, "w")
sys.argv = sys.argv[1:]
try:
    getattr(entry, sys.argv[0].replace("-", "_"))()
except SystemExit:
    pass
json.dump(sorted(sys.modules), told)
"""

#: What nobody who only looks, or only asks, has a use for.
_HEAVY = ("sqlalchemy", "prometheus_client", "h2", "rich", "asyncio", "http", "concurrent")
_TLS = ("OpenSSL", "ssl", "service_identity")
_TWISTED = ("twisted", "zope")
_ISSUING = ("pki.issuing.authority", "pki.issuing.lint", "pki.ocsp", "pki.policy", "pki.audit")

#: A command line, and what it must not have loaded: a package with all that is in it, or a module.
LOADS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "pki-inspect --help": (
        ["pki-inspect", "--help"],
        ("cryptography", "attr", "msgspec", *_HEAVY, *_TLS, *_TWISTED),
    ),
    "pki-inspect show": (
        ["pki-inspect", "show", "leaf.pem"],
        (
            "msgspec",
            "pki.issuing",
            "pki.crl",
            "pki.svid.chain",
            "pki.ct.receipt",
            *_HEAVY,
            *_TLS,
            *_TWISTED,
            *_ISSUING,
        ),
    ),
    "pki-inspect verify": (
        ["pki-inspect", "verify", "leaf.pem", "--roots", "root.pem"],
        ("pki.issuing.authority", "pki.ct.receipt", *_HEAVY, *_TWISTED),
    ),
    "mesh-ctl --help": (
        ["mesh-ctl", "--help"],
        ("cryptography", "attr", "msgspec", *_HEAVY, *_TLS, *_TWISTED),
    ),
    "mesh-ctl cert list --help": (
        ["mesh-ctl", "cert", "list", "--help"],
        ("cryptography", *_HEAVY, *_TLS, *_TWISTED),
    ),
    "mesh-client --help": (
        ["mesh-client", "--help"],
        ("cryptography", "attr", "msgspec", *_HEAVY, *_TLS, *_TWISTED),
    ),
}


def modules(home: Path, command: list[str], *more: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _TELLING, *command, *more],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=home,
    )
    assert done.stdout, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def loaded(found: list[str], unwanted: tuple[str, ...]) -> list[str]:
    return [name for name in found if any(f"{name}.".startswith(f"{no}.") for no in unwanted)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    leaf = (mesh().leaf(), *mesh().issuing.intermediates)
    (tmp_path / "leaf.pem").write_bytes(certificates_pem(leaf))
    (tmp_path / "root.pem").write_bytes(certificates_pem([mesh().root.certificate]))
    return tmp_path


@pytest.mark.parametrize(("command", "unwanted"), LOADS.values(), ids=LOADS)
def test_a_program_loads_what_it_needs(
    command: list[str], unwanted: tuple[str, ...], home: Path
) -> None:
    assert not loaded(modules(home, command), unwanted)


_ROW = {
    **{
        "serial": "2a",
        "subject": "CN=web",
        "spiffe_id": "spiffe://mesh.local/service/web",
        "status": "valid",
    },
    **{"issued_at": "2026-11-01T00:00:00Z", "expires_at": "2026-11-01T01:00:00Z", "entry": "e"},
}


def test_who_asks_a_ca_on_this_machine_loads_neither_twisted_nor_tls(home: Path) -> None:
    page = json.dumps({"certificates": [_ROW], "next": None}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page
    path = str(home / "ca.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    with answering(says(answer), listening):
        asking = ["mesh-ctl", "cert", "list", "--ca-url", f"unix:{path}"]
        found = modules(home, asking)
    assert "twisted_mesh.http.answer_reader" in found
    unwanted = (*_HEAVY, *_TLS, *_TWISTED, "pki.issuing.authority", "pki.ocsp", "pki.audit")
    assert not loaded(found, unwanted)


def test_who_asks_one_over_tls_loads_no_reactor(home: Path) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    asking = ["mesh-ctl", "cert", "list", "--ca-url", url, "--ca-file", "root.pem"]
    found = modules(home, asking)
    assert "twisted_mesh.tls.blocking" in found
    assert not loaded(found, ("twisted.internet.reactor", "sqlalchemy", "rich"))


_SERVING = """
import gc, json, os, sys
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
(maker,) = (made for made in getPlugins(IServiceMaker) if made.tapname == sys.argv[1])
told, sys.stdout = sys.stdout, open(os.devnull, "w")
before = sum(generation["collections"] for generation in gc.get_stats())
maker.options
looks = sum(generation["collections"] for generation in gc.get_stats()) - before
json.dump([looks, sorted(sys.modules)], told)
"""

#: A service, and what it must not have loaded when it begins to start.
SERVES = {
    "mesh-ca": (
        *("click", "rich", "tomllib", "platformdirs", "twisted.web.client"),
        *(
            "pki.rules.rule_set",
            "twisted_mesh.ca.policy.external",
            "twisted_mesh.http.https_client",
        ),
        *(
            "twisted_mesh.workload",
            "twisted_mesh.grpc",
            "twisted_mesh.api.client",
            "twisted_mesh.cli.ctl",
        ),
        # Who has nobody to ask about containers.
        "twisted_mesh.attest.workload_attestors",
        "twisted_mesh.attest.container_runtime",
        "twisted_mesh.attest.kubelet",
    ),
    # Who demands no receipts of logs has no use for what judges them.
    "mesh-server": (
        "click",
        "rich",
        "sqlalchemy",
        "twisted_mesh.ca",
        "twisted_mesh.grpc",
        "pki.ct",
    ),
}


@pytest.mark.parametrize(("service", "unwanted"), SERVES.items(), ids=SERVES)
def test_a_service_loads_what_it_needs_and_looks_for_no_garbage_meanwhile(
    service: str, unwanted: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVING, service], capture_output=True, text=True, timeout=60
    )
    assert done.stdout, done.stderr
    looks, found = json.loads(done.stdout)
    assert looks <= 1  # whatever was made before counts too
    assert not loaded(found, unwanted)
