"""What a machine's OpenSSL is configured to, by OPENSSL_CONF: what our programs make of it, and what they say."""

from pathlib import Path

from tests.first_lines.row import FirstLine
from tests.running import BIN, Running, mesh

#: The security level of 256 bits: no certificate of the mesh is strong enough for it.
_TOO_STRICT = "CipherString = DEFAULT@SECLEVEL=5"


def configured(directory: Path, setting: str) -> dict[str, str]:
    """The environment of a program whose OpenSSL is configured so."""
    path = directory / "openssl.cnf"
    path.write_text(
        "openssl_conf = all\n[all]\nssl_conf = modules\n[modules]\nsystem_default = ours\n"
        f"[ours]\n{setting}\n"
    )
    return {"OPENSSL_CONF": str(path)}


def too_strict(directory: Path) -> str:
    with mesh(directory) as ours:
        ours.start_ca()
        server = Running.start(
            BIN / "twistd",
            *("-n", "mesh-server", "--listen", "127.0.0.1:0"),
            cwd=directory,
            env={**ours.env, **configured(directory, _TOO_STRICT)},
        )
        ours.processes.append(server)
        return server.wait_for("No certificate .*")[0]


ROWS = (
    FirstLine(
        "OpenSSL is configured to a security level that nothing has",
        "server",
        r"a TLS 1\.3 handshake of this process with itself fails: .*too (small|weak)",
        r"look what this machine's OpenSSL is configured to by OPENSSL_CONF=\S+/openssl\.cnf",
        too_strict,
        starts_processes=True,
    ),
)
