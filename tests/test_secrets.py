"""Each reader of a secret is handed it mangled, and others' files too: no piece of it is in what is said or logged."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from pki.audit.log import LogKey
from pki.crl.crl import crls_in
from pki.errors import PkiError
from pki.issuing.csr import load_csr
from pki.keys import KeyAlgorithm, KeyReference, MemoryKey
from pki.ocsp.evidence import answers_from
from pki.policy.join_token import JoinToken
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, MESH, NOW, key, mesh
from tests.mangled import MANGLINGS, Secret, everything_logged, secret_key, secret_token
from twisted_mesh.api.messages import NewRegistration, NewToken, SignRequest
from twisted_mesh.backup import credentials
from twisted_mesh.backup.archive import Archive
from twisted_mesh.ca.entries_file import read_entries
from twisted_mesh.ca.issuing_files import read_certificate
from twisted_mesh.cli import client, inspect
from twisted_mesh.cli.ctl import command
from twisted_mesh.http.json import parse_json
from twisted_mesh.identity.bootstrap import ca_client, join_token
from twisted_mesh.identity.exported import exported
from twisted_mesh.identity.saved_svid import SavedSvid
from twisted_mesh.keystores.pins import Pins
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.revocation.crl_source import crl_issuers
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase
from twisted_mesh.taps.server_options import Options as ServerOptions
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

KEYS = {
    "a key": secret_key(),
    "an encrypted key": secret_key(b"x"),
}
A_TOKEN = secret_token()
#: One with no words of its own in it.
_WORD = b"qZ7xWv9kJf3LpR8tYb2N"
PASSPHRASE = Secret(_WORD, _WORD)

Reader = Callable[[bytes, Path], object]


def filed(data: bytes, home: Path, name: str = "secret") -> Path:
    path = home / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _exported(data: bytes, home: Path, name: str) -> object:
    filed(certificates_pem([mesh().issuing.certificate]), home, "svid.pem")
    filed(key(9).to_pem(), home, "svid_key.pem")
    filed(data, home, name)
    return exported(home)


def _recalled(data: bytes, home: Path) -> object:
    home.chmod(0o700)
    (home / "current").mkdir(mode=0o700)
    for name in ("svid.pem", "svid_key.pem", "svid_bundle.pem"):
        filed(data, home / "current", name)
    return SavedSvid(home).recall(BACKEND, Judge(lambda: NOW, Trust()), NOW)


def _archived(data: bytes, home: Path) -> object:
    with tarfile.open(home / "ca.tar", "w") as tar:
        for name in ("manifest.json", "ca/private/root.key", "ca/root.crt"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return Archive.open(home / "ca.tar").read(home)


def _ctl(*arguments: str) -> Reader:
    def run(data: bytes, home: Path) -> object:
        path = str(filed(data, home))
        return command.main([argument.replace("FILE", path) for argument in arguments])

    return run


def _inspect(*arguments: str) -> Reader:
    def run(data: bytes, home: Path) -> object:
        path = str(filed(data, home))
        return inspect.main([argument.replace("FILE", path) for argument in arguments])

    return run


READERS_OF_KEYS: dict[str, Reader] = {
    "a key in memory": lambda data, home: MemoryKey.from_pem(data),
    "a key with a passphrase": lambda data, home: MemoryKey.from_pem(data, b"y"),
    "a log's key": lambda data, home: LogKey.from_pem("log", data),
    "a CA's key": lambda data, home: KeyFiles(filed(data, home).parent).load(
        "secret", MemoryKey.from_pem
    ),
    "a CA's encrypted key": lambda data, home: KeyFiles(filed(data, home).parent, b"y").load(
        "secret", MemoryKey.from_pem
    ),
    "a CA's certificate": lambda data, home: read_certificate(filed(data, home)),
    "--ca-file": lambda data, home: ca_client(
        MemoryReactorClock(), "https://ca", str(filed(data, home)), home, MESH
    ),
    "--crl-issuer": lambda data, home: crl_issuers([str(filed(data, home))]),
    "--svid's chain": lambda data, home: _exported(data, home, "svid.pem"),
    "--svid's key": lambda data, home: _exported(data, home, "svid_key.pem"),
    "a kept identity": _recalled,
    "a CSR": lambda data, home: load_csr(data),
    "a CRL": lambda data, home: crls_in(data),
    "an OCSP answer": lambda data, home: answers_from(data, [mesh().leaf()] * 2, NOW),
    "a backup": _archived,
    "a backup's files": lambda data, home: credentials.check(
        {
            "ca/root.crt": data,
            "ca/issuing.crt": data,
            "ca/private/root.key": data,
            "x/audit.key": data,
        }
    ),
    "a key reference": lambda data, home: KeyReference.parse(data),
    "a key reference's public half": lambda data, home: KeyReference.parse(
        b"pkcs11:token=mesh\n" + data
    ),
    "--issuing-key": lambda data, home: KeySpec.parse(
        _words(data), "--issuing-key", KeyAlgorithm.EC_P256
    ),
    "entries": lambda data, home: read_entries(filed(data, home), MESH),
    "a passphrase": lambda data, home: read_passphrase(filed(data, home)),
    "mesh-ctl cert list --key": _ctl("cert", "list", "--key", "FILE"),
    "mesh-ctl cert list --issuer": _ctl("cert", "list", "--issuer", "FILE"),
    "mesh-ctl token create --csr": _ctl(
        "token", "create", "--spiffe-id", str(BACKEND), "--csr", "FILE"
    ),
    "mesh-ctl why --request": _ctl("why", "--request", "FILE"),
    "mesh-ctl backup verify": _ctl("backup", "verify", "FILE"),
    "pki-inspect show": _inspect("show", "FILE"),
    "pki-inspect show as JSON": _inspect("show", "FILE", "--format", "json"),
    "pki-inspect lint": _inspect("lint", "FILE"),
    "pki-inspect probe": _inspect("probe", "localhost:1", "--roots", "FILE"),
    "pki-inspect verify": _inspect("verify", "FILE", "--roots", "FILE"),
    "pki-inspect verify --crl": _inspect("verify", "FILE", "--roots", "FILE", "--crl", "FILE"),
}


def _member(name: str, shape: type[object]) -> Reader:
    """JSON and TOML that hold it, as a value of the wrong kind, as a name, and as it is."""

    def read(data: bytes, home: Path) -> object:
        text = data.decode("latin-1")
        said = ""
        for body in (
            data,
            json.dumps({name: text}).encode(),
            json.dumps({name: [text]}).encode(),
            json.dumps({text: name}).encode(),
            json.dumps({name: {text: text}}).encode(),
            json.dumps({"selectors": [text], "spiffe_id": text, "ttl": text}).encode(),
            b'{"' + data + b'": 1, "' + data + b'": 1}',
            b'{"token": ' + data,
        ):
            try:
                parse_json(body, shape)
            except PkiError as error:
                said += f"{error}\n"
        raise PkiErrorOf(said)

    return read


class PkiErrorOf(PkiError):
    """What was said by several."""


def _toml(data: bytes, home: Path) -> object:
    text = data.decode("latin-1")
    said = ""
    for document in (
        text,
        f"[entries.a]\n{text}",
        f"[entries.a]\ntoken = {json.dumps(text)}\n",
        f"[entries.a]\nselectors = [{json.dumps(text)}]\nspiffe_id = {json.dumps(text)}\n",
        f"[entries.a]\n{json.dumps(text)} = 1\n",
        f"[entries.{json.dumps(text)}]\n",
        f"{json.dumps(text)} = 1\n{json.dumps(text)} = 1\n",
    ):
        try:
            read_entries(filed(document.encode("latin-1"), home), MESH)
        except PkiError as error:
            said += f"{error}\n"
    raise PkiErrorOf(said)


def _words(data: bytes) -> str:
    """As a shell hands it over."""
    return data.replace(b"\0", b"").decode("latin-1")


def _server(data: bytes, home: Path) -> object:
    for arguments in (
        ["--join-token", _words(data)],
        ["--join-token", *_words(data).split()],
        ["--join-token-file", str(filed(data, home))],
        ["--ca-fingerprint", _words(data), "--ca-url", "https://ca"],
    ):
        options = ServerOptions()
        try:
            options.parseOptions(arguments)
        except (UsageError, SystemExit, PkiError) as error:
            print(error)
    return None


def _client(data: bytes, home: Path) -> object:
    where = ["--ca-url", "https://ca.example:1", "--state-dir", str(home)]
    path = str(filed(data, home))
    for arguments in (
        [*where, "--join-token", _words(data), "/"],
        [*where, "--join-token", *_words(data).split(), "/"],
        [*where, f"--join-token={_words(data)}"],
        [*where, f"--join-tokn={_words(data)}"],
        [*where, "--join-token-file", path],
        [*where, "--join-token-file", _words(data)],
        [*where, "--ca-fingerprint", _words(data)],
    ):
        client.main(arguments)
    return None


READERS_OF_TOKENS: dict[str, Reader] = {
    "a token": lambda data, home: JoinToken.parse(data.decode("latin-1")),
    "--join-token": lambda data, home: join_token(_words(data), None),
    "--join-token-file": lambda data, home: join_token(None, str(filed(data, home))),
    "standard input": lambda data, home: join_token(None, "-", io.BytesIO(data)),
    "JSON to sign": _member("token", SignRequest),
    "JSON of a new token": _member("entry", NewToken),
    "JSON of a new entry": _member("selectors", NewRegistration),
    "TOML": _toml,
    "mesh-server": _server,
    "mesh-client": _client,
    "mesh-ctl token revoke": lambda data, home: command.main(["token", "revoke", _words(data)]),
    "mesh-ctl token revoke, in pieces": lambda data, home: command.main(
        ["token", "revoke", *_words(data).split()]
    ),
    "mesh-ctl why --request": _ctl("why", "--request", "FILE"),
    "mesh-ctl cert list --key": lambda data, home: command.main(
        ["cert", "list", "--key", _words(data)]
    ),
}


def _opened(data: bytes, home: Path) -> object:
    """The passphrase of a key that has another."""
    filed(secret_key(b"x").text, home, "root.key")
    found = read_passphrase(filed(data, home))
    return KeyFiles(home, found).load("root.key", MemoryKey.from_pem)


def _piped(data: bytes, home: Path) -> object:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return read_passphrase(None, reading)


READERS_OF_PASSPHRASES: dict[str, Reader] = {
    "--key-passphrase-file": lambda data, home: read_passphrase(filed(data, home)),
    "its name": lambda data, home: read_passphrase(Path(_words(data))),
    "--key-passphrase-fd": _piped,
    "a key with another": _opened,
    "--token-pin-file": lambda data, home: Pins(filed(data, home)).pin(),
    "a PIN as its own source": lambda data, home: Pins().pin(_words(data)),
    "a PIN in a URI": lambda data, home: KeySpec.parse(
        f"pkcs11:token=mesh?pin-value={_words(data)}", "--issuing-key", KeyAlgorithm.EC_P256
    ),
}


def said_of(read: Reader, data: bytes, home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    error = ""
    with everything_logged() as logged:
        try:
            read(data, home)
        except (PkiError, UsageError) as refused:
            error = f"{refused} {refused!r} " + " ".join(map(str, getattr(refused, "problems", ())))
    out, err = capsys.readouterr()
    return "\n".join((error, out, err, *logged))


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory without a CA, and nobody's home."""
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("reader", READERS_OF_KEYS)
@pytest.mark.parametrize("kind", KEYS)
def test_nothing_of_a_key_is_said(
    kind: str, reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, mangle in MANGLINGS.items():
        (home := tmp_path / name.replace(" ", "-")).mkdir()
        said = said_of(READERS_OF_KEYS[reader], mangle(KEYS[kind].text), home, capsys)
        if pieces := KEYS[kind].found_in(said):
            found[name] = pieces, said
    assert not found


@pytest.mark.parametrize("reader", READERS_OF_TOKENS)
def test_nothing_of_a_token_is_said(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, mangle in {**MANGLINGS, "as it is": bytes}.items():
        (home := tmp_path / name.replace(" ", "-")).mkdir()
        said = said_of(READERS_OF_TOKENS[reader], mangle(A_TOKEN.text), home, capsys)
        if pieces := A_TOKEN.found_in(said):
            found[name] = pieces, said
    assert not found


@pytest.mark.parametrize("reader", READERS_OF_PASSPHRASES)
def test_nothing_of_a_passphrase_is_said(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, mangle in MANGLINGS.items():
        (home := tmp_path / name.replace(" ", "-")).mkdir()
        said = said_of(READERS_OF_PASSPHRASES[reader], mangle(PASSPHRASE.text), home, capsys)
        if pieces := PASSPHRASE.found_in(said):
            found[name] = pieces, said
    assert not found


def test_a_piece_is_found_however_it_is_said() -> None:
    secret = Secret(b"mj1_abcdefgh", b"abcdefgh")
    assert secret.found_in("ABCD\\x00EFx") == ["abcdef"]
    assert not secret.found_in("mj1_abcde (3 characters, not shown)")
