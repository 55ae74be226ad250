"""Options that cannot be used end with one sentence and a status that is not 0."""

from pathlib import Path

import pytest

from tests.interop.house import House
from tests.running import BIN

CA: dict[str, tuple[str, str]] = {
    "--no-such-option": ("mesh-ca", "no-such-option"),
    "--port": ("mesh-ca", "port"),
    "--port 70000": ("mesh-ca", "65535"),
    "--port http": ("mesh-ca", "no address to listen on"),
    "--port -1": ("mesh-ca", "no address to listen on"),
    "--port 0 --listen 127.0.0.1:0": ("mesh-ca", "--port and --listen"),
    "--listen tcp:x:y": ("mesh-ca", "no address to listen on"),
    "--trust-domain Mesh.Local": ("mesh-ca", "lower-case"),
    "--trust-domain spiffe://a/b": ("mesh-ca", "trust domain"),
    "--root-key rsa-1024": ("mesh-ca", "--root-key is one of"),
    "--issuing-key ed448": ("mesh-ca", "--issuing-key is one of"),
    "--cert-duration 0s": ("mesh-ca", "--cert-duration"),
    "--cert-duration soon": ("mesh-ca", "duration"),
    "--cert-duration 2d": ("mesh-ca", "--max-cert-duration"),
    "--max-cert-duration 366d": ("mesh-ca", "365d"),
    "--insecure-http yes": ("mesh-ca", "--insecure-http takes a port"),
    "--insecure-http 65536": ("mesh-ca", "--insecure-http takes a port"),
    "--store postgresql://u:secret@h/d": ("mesh-ca", "later version"),
    "--store mongo": ("mesh-ca", "is no store"),
    "--log-format xml": ("mesh-ca", "--log-format is one of"),
    "--drain forever": ("mesh-ca", "duration"),
    "--socket /nowhere/at/all/ca.sock": (
        "mesh-ca",
        "/nowhere/at/all/ca.sock cannot be listened on",
    ),
    "--socket " + "/tmp/" + "x" * 120: ("mesh-ca", "too long"),
    "--issuance-log /nowhere/log": ("mesh-ca", "issuance log /nowhere/log cannot be written"),
    "--blocked-keys /nowhere/list": ("mesh-ca", "--blocked-keys /nowhere/list cannot be read"),
    "--blocked-keys /etc/hostname": ("mesh-ca", "--blocked-keys: /etc/hostname: line 1"),
    "stray": ("mesh-ca", "is not an option"),
}
SERVER: dict[str, tuple[str, str]] = {
    "--allow everybody": ("mesh-server", "spiffe://"),
    "--allow spiffe://mesh.local/**/x": ("mesh-server", "path"),
    "--spiffe-id payment": ("mesh-server", "spiffe://"),
    "--spiffe-id spiffe://other.example/x": ("mesh-server", "not of --trust-domain"),
    "--dns *.example": ("mesh-server", "--dns"),
    "--dns UPPER": ("mesh-server", "--dns"),
    "--ip 300.1.1.1": ("mesh-server", "--ip"),
    "--key des": ("mesh-server", "--key is one of"),
    "--ttl 1y": ("mesh-server", "duration"),
    "--rotate-at 1.5": ("mesh-server", "--rotate-at"),
    "--rotate-at nan": ("mesh-server", "--rotate-at"),
    "--revocation-max-age 2s": ("mesh-server", "--revocation-max-age is at least 3s"),
    "--revocation-max-age soon": ("mesh-server", "duration"),
    "--on-stale open": ("mesh-server", "--on-stale is one of fail-closed, grace"),
    "--listen nowhere": ("mesh-server", "no address to listen on"),
    "--listen 127.0.0.1:0 --status 127.0.0.1:x": ("mesh-server", "no address to listen on"),
    "--ca-url ftp://x": ("mesh-server", "CA address"),
    "--ca-url http://ca.example:8080": ("mesh-server", "this machine only"),
    "--ca-url https://localhost:8443": ("mesh-server", "--ca-file"),
    "--ca-url https://localhost:8443 --ca-file /nowhere": (
        "mesh-server",
        "/nowhere cannot be read",
    ),
    "--ca-url https://localhost:8443 --ca-file /etc/passwd": ("mesh-server", "PEM"),
    "--ca-url https://localhost:99999": ("mesh-server", "CA address"),
    "--ca-url ftp://ca.example:21": ("mesh-server", "CA address"),
    "--ca-file /etc/passwd": ("mesh-server", "--ca-file is for"),
    "--ca-url https://localhost:1 --ca-fingerprint sha1:ab": ("mesh-server", "no SHA-256"),
    "--ca-fingerprint sha256:" + "ab" * 32: ("mesh-server", "--ca-fingerprint is for"),
    "--join-token mj1_secret": ("mesh-server", "no whole join token"),
    "--join-token a --join-token-file b": ("mesh-server", "give one of them"),
    "--join-token-file /nowhere": ("mesh-server", "/nowhere cannot be read"),
}
CLIENT: dict[str, tuple[str, str]] = {
    "--no-such-option": ("mesh-client", "no such option"),
    "--server http://localhost:1": ("mesh-client", "https://HOST:PORT"),
    "--server https://": ("mesh-client", "https://HOST:PORT"),
    "--server https://localhost:99999": ("mesh-client", "https://HOST:PORT"),
    "--server https://localhost:1/path": ("mesh-client", "https://HOST:PORT"),
    "--server https://user@localhost": ("mesh-client", "https://HOST:PORT"),
    "--server-id somebody": ("mesh-client", "spiffe://"),
    "--spiffe-id spiffe://mesh.local/a//b": ("mesh-client", "empty segments"),
    "--trust-domain UPPER": ("mesh-client", "lower-case"),
    "--ca-url gopher://x": ("mesh-client", "CA address"),
    "--ca-url gopher://x:70": ("mesh-client", "CA address"),
    "--server ftp://localhost:21": ("mesh-client", "https://HOST:PORT"),
    "--ca-url https://localhost:1": ("mesh-client", "--ca-file"),
    "--ca-url https://localhost:1 --ca-fingerprint ab": ("mesh-client", "no SHA-256"),
    "--ca-fingerprint " + "AB" * 32: ("mesh-client", "--ca-fingerprint is for"),
    "--join-token mj1_secret": ("mesh-client", "no whole join token"),
    "--join-token a --join-token-file b": ("mesh-client", "give one of them"),
    "--join-token-file /nowhere": ("mesh-client", "/nowhere cannot be read"),
    "--join-token-file -": ("mesh-client", "no whole join token"),
    "--key none": ("mesh-client", "--key is one of"),
    "--ttl 1.5h": ("mesh-client", "duration"),
    "--repeat 0": ("mesh-client", "--repeat"),
    "--repeat many": ("mesh-client", "--repeat"),
    "--interval -1s": ("mesh-client", "duration"),
    "--timeout never": ("mesh-client", "duration"),
    "--rotate-at 2": ("mesh-client", "--rotate-at"),
    "--format yaml": ("mesh-client", "--format"),
    "no-slash": ("mesh-client", "is no path"),
    "/x /y": ("mesh-client", "unexpected extra argument"),
}
EVERY = [(table, line) for table in (CA, SERVER, CLIENT) for line in table]


@pytest.mark.parametrize(
    ("table", "line"), EVERY, ids=[f"{table[line][0]} {line[:60]}" for table, line in EVERY]
)
def test_a_bad_option_ends_with_one_sentence(
    table: dict[str, tuple[str, str]], line: str, house: House
) -> None:
    program, words = table[line]
    command: list[str | Path] = (
        [BIN / "mesh-client"] if table is CLIENT else [BIN / "twistd", "-n", program]
    )
    if table is CA and "port" not in line and "listen" not in line:
        command += ["--port", "0", "--root-key", "ec-p256"]
    done = house.run(*command, *line.split())
    assert done.returncode == (2 if table is CLIENT else 1), done
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"{program}: ")
    assert words.lower() in sentence.lower()
    assert "secret" not in done.stdout + done.stderr, (
        "no password of a store is shown, and no token"
    )


@pytest.mark.parametrize("program", ["mesh-ca", "mesh-server", "mesh-client"])
def test_help_says_how_it_is_used(program: str, house: House) -> None:
    command: list[str | Path] = (
        [BIN / "mesh-client"] if program == "mesh-client" else [BIN / "twistd", program]
    )
    done = house.run(*command, "--help")
    assert done.returncode == 0
    assert "--trust-domain" in done.stdout
