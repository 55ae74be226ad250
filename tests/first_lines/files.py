"""Files that are named and are something else, or cannot be read: what they are, and what to do."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from pki.issuing.csr import build_csr
from pki.keys import MemoryKey
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, key, mesh, pem, sign_crl
from tests.first_lines.row import FirstLine
from tests.mangled import secret_token
from twisted_mesh.cli import client, inspect
from twisted_mesh.cli.ctl import command
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase

Make = Callable[[Path], Path]
Say = Callable[[Path], str]
ROOT = certificates_pem([mesh().root.certificate])
ISSUING = certificates_pem([mesh().issuing.certificate])
LEAF = certificates_pem([mesh().leaf()])
CHAIN = LEAF + ISSUING
TOKEN = secret_token().text


def said_by(program: Callable[[list[str]], int], *arguments: str) -> str:
    """What a command says to a person: nothing goes out of this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        program(list(arguments))
    return err.getvalue() or out.getvalue()


def error_of(read: Callable[[], object]) -> str:
    try:
        return f"it was taken: {read()!r}"
    except Exception as error:
        return str(error)


def roots(data: bytes) -> Say:
    """A client's ``--ca-file``."""

    def say(home: Path) -> str:
        (home / "ca.pem").write_bytes(data)
        return named_as_roots(home / "ca.pem", home)

    return say


def named_as_roots(path: Path, home: Path) -> str:
    asked = ("--ca-url", "https://127.0.0.1:1", "--ca-file", str(path), "--state-dir", str(home))
    return said_by(client.main, *asked, "--timeout", "1s", "/")


def place(make: Make) -> Say:
    """A client's ``--ca-file`` that cannot be read."""
    return lambda home: named_as_roots(make(home), home)


def identity(name: str, data: bytes) -> Say:
    """An administrator's ``--svid`` with one file replaced."""

    def say(home: Path) -> str:
        me = home / "me"
        me.mkdir()
        files = {"svid.pem": CHAIN, "svid_key.pem": key(9).to_pem(), "svid_bundle.pem": ROOT}
        for file, content in {**files, name: data}.items():
            (me / file).write_bytes(content)
        asked = ("--ca-url", "https://127.0.0.1:1", "--svid", str(me))
        return said_by(command.main, "cert", "list", *asked)

    return say


def token(data: bytes) -> Say:
    """A client's ``--join-token-file``."""

    def say(home: Path) -> str:
        (home / "token").write_bytes(data)
        fingerprint = "sha256:" + "ab" * 32
        asked = ("--ca-url", "https://127.0.0.1:1", "--ca-fingerprint", fingerprint)
        return said_by(client.main, *asked, "--join-token-file", str(home / "token"), "/")

    return say


def ca_key(data: bytes, passphrase: bytes | None = None) -> Say:
    """A CA's ``root.key``."""

    def say(home: Path) -> str:
        (home / "root.key").write_bytes(data)
        (home / "root.key").chmod(0o600)
        return error_of(lambda: KeyFiles(home, passphrase).load("root.key", MemoryKey.from_pem))

    return say


def passphrase(data: bytes) -> Say:
    """A CA's ``--key-passphrase-file``."""

    def say(home: Path) -> str:
        (home / "word").write_bytes(data)
        (home / "word").chmod(0o600)
        return error_of(lambda: read_passphrase(home / "word"))

    return say


def shown(data: bytes) -> Say:
    """``pki-inspect verify``."""

    def say(home: Path) -> str:
        (home / "thing").write_bytes(data)
        (home / "root.crt").write_bytes(ROOT)
        return said_by(
            inspect.main, "verify", str(home / "thing"), "--roots", str(home / "root.crt")
        )

    return say


def below_a_file(home: Path) -> Path:
    (home / "file").touch()
    return home / "file" / "root.crt"


def a_broken_link(home: Path) -> Path:
    (home / "root.crt").symlink_to("gone")
    return home / "root.crt"


def too_long(home: Path) -> Path:
    (home / "large").touch()
    os.truncate(home / "large", 100 * 1024 * 1024)
    return home / "large"


_OTHER_KEY = key(8).to_pem()
_NAME_ROOT = r"name the file with the root, which mesh-ca keeps as ca/root\.crt"
ROWS = (
    FirstLine(
        "a leaf as roots",
        "client",
        r"--ca-file /.*ca\.pem: .*is no CA certificate.*/service/backend's",
        _NAME_ROOT,
        roots(LEAF),
    ),
    FirstLine(
        "an issuing CA as roots",
        "client",
        r"is an issuing CA, which .* has certified",
        _NAME_ROOT,
        roots(ISSUING),
    ),
    FirstLine(
        "a key as roots",
        "client",
        "ca.pem holds no certificates but a private key",
        "name the file with the certificate",
        roots(key().to_pem()),
    ),
    FirstLine(
        "a CSR as roots",
        "client",
        "ca.pem holds no certificates but a CSR",
        "name the file with the certificate",
        roots(build_csr(key(), BACKEND)),
    ),
    FirstLine(
        "a CRL as roots",
        "client",
        "no certificates but a CRL",
        "name the file with the certificate",
        roots(pem(sign_crl(mesh().issuing), "X509 CRL")),
    ),
    FirstLine(
        "a PKCS #7 as roots",
        "client",
        "but a PKCS #7 file",
        r"openssl pkcs7 -print_certs",
        roots(pem(b"0\0", "PKCS7")),
    ),
    FirstLine(
        "roots in UTF-16",
        "client",
        r"text in UTF-16, as PowerShell",
        "iconv -f UTF-16",
        roots(ROOT.decode().encode("utf-16")),
    ),
    FirstLine(
        "roots cut short",
        "client",
        "its PEM block CERTIFICATE has no end",
        "copy it anew",
        roots(ROOT[:200]),
    ),
    FirstLine(
        "one damaged root",
        "client",
        "ca.pem: the certificate 2 of 2 in it cannot be decoded",
        "copy it anew",
        roots(ROOT + pem(b"0\x03\x02\x01\x01")),
    ),
    FirstLine(
        "empty roots",
        "client",
        "ca.pem holds no certificates.*there is nothing in it",
        "copy the file anew",
        roots(b""),
    ),
    FirstLine(
        "a directory as roots",
        "client",
        r"--ca-file /\S+ cannot be read \(Is a directory",
        "name the file in it",
        place(lambda home: home),
    ),
    FirstLine(
        "a device as roots",
        "client",
        "/dev/zero cannot be read .*a device",
        "name a file",
        place(lambda home: Path("/dev/zero")),
    ),
    FirstLine(
        "no directory on the way",
        "client",
        r"there is no directory /\S+/no:",
        "correct the name",
        place(lambda home: home / "no" / "such" / "root.crt"),
    ),
    FirstLine(
        "a file on the way",
        "client",
        r"/file is a file and no directory",
        "correct the name",
        place(below_a_file),
    ),
    FirstLine(
        "a link to nothing",
        "client",
        "it is a link to gone, which is not there",
        "mend the link",
        place(a_broken_link),
    ),
    FirstLine(
        "something huge as roots",
        "client",
        "it has over 67108864 bytes",
        "another file than is meant",
        place(too_long),
    ),
    FirstLine(
        "half a token",
        "client",
        "22 of 44 characters are there",
        "copy all of it",
        token(TOKEN[:22]),
    ),
    FirstLine(
        "a token below an empty line",
        "client",
        "the first line is empty",
        "write it on the first line",
        token(b"\n" + TOKEN),
    ),
    FirstLine(
        "a token in UTF-16",
        "client",
        "in UTF-16, as PowerShell",
        "save it as ASCII",
        token(TOKEN.decode().encode("utf-16")),
    ),
    FirstLine(
        "a mistyped token",
        "client",
        "all 44 characters are there, and not all",
        "copy all of it",
        token(TOKEN[:-1] + b"7"),
    ),
    FirstLine(
        "a damaged chain of --svid",
        "ctl",
        r"--svid /\S+/svid\.pem holds no certificates",
        "copy it anew",
        identity("svid.pem", CHAIN[:300]),
    ),
    FirstLine(
        "a damaged key of --svid",
        "ctl",
        r"--svid /\S+/svid_key\.pem: .*has no end",
        "copy it anew",
        identity("svid_key.pem", key(9).to_pem()[:100]),
    ),
    FirstLine(
        "an encrypted key of --svid",
        "ctl",
        r"svid_key\.pem: the private key is encrypted",
        "openssl pkey",
        identity("svid_key.pem", key(9).to_pem(b"x")),
    ),
    FirstLine(
        "another key in --svid",
        "ctl",
        r"svid\.pem and svid_key\.pem do not belong together: .*/service/backend",
        "export both anew",
        identity("svid_key.pem", _OTHER_KEY),
    ),
    FirstLine(
        "a damaged bundle of --svid",
        "ctl",
        r"--svid /\S+/svid_bundle\.pem holds no certificates",
        "copy the file anew",
        identity("svid_bundle.pem", b""),
    ),
    FirstLine(
        "a certificate as a key",
        "ca",
        r"/root\.key: this is no private key but a certificate",
        "name the file with the key",
        ca_key(ROOT),
    ),
    FirstLine(
        "a key of OpenSSH",
        "ca",
        "a private key in OpenSSH's format",
        "ssh-keygen -p -m PKCS8",
        ca_key(pem(b"openssh-key-v1\0", "OPENSSH PRIVATE KEY")),
    ),
    FirstLine(
        "a key that is empty",
        "ca",
        r"/root\.key: .*there is nothing in it",
        "restore it from a backup",
        ca_key(b""),
    ),
    FirstLine(
        "an encrypted key without its passphrase",
        "ca",
        r"/root\.key is encrypted",
        "--key-passphrase-file or --key-passphrase-fd",
        ca_key(key().to_pem(b"x")),
    ),
    FirstLine(
        "a wrong passphrase",
        "ca",
        r"/root\.key cannot be decrypted: .* wrong passphrase",
        "--key-passphrase-file",
        ca_key(key().to_pem(b"x"), b"y"),
    ),
    FirstLine(
        "a passphrase with a byte order mark",
        "ca",
        "begins with a byte order mark",
        "save its file without",
        ca_key(key().to_pem(b"x"), b"\xef\xbb\xbfx"),
    ),
    FirstLine(
        "an empty passphrase file",
        "ca",
        r"--key-passphrase-file /\S+ is empty",
        "write the passphrase on its first line",
        passphrase(b""),
    ),
    FirstLine(
        "a passphrase below an empty line",
        "ca",
        "the first line of --key-passphrase-file",
        "write the passphrase on its first line",
        passphrase(b"\nx\n"),
    ),
    FirstLine(
        "a passphrase in UTF-16",
        "ca",
        "is in UTF-16, as PowerShell",
        "save it as UTF-8",
        passphrase("x\n".encode("utf-16")),
    ),
    FirstLine(
        "a key to be verified",
        "inspector",
        "it holds no certificate, but .*private key",
        "give a certificate",
        shown(key().to_pem()),
    ),
    FirstLine(
        "a CSR to be verified",
        "inspector",
        "it holds no certificate, but CSR",
        "give a certificate",
        shown(build_csr(key(), BACKEND)),
    ),
)
