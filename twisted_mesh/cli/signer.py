"""``mesh-signer keys``, ``approve``, ``adopt`` and ``log verify``: what a person does on the signer's own machine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.program import CONTEXT, run_program, with_version

if TYPE_CHECKING:
    from twisted_mesh.signer.record import Record

_state_dir = click.option(
    "--state-dir",
    metavar="DIR",
    help="Where the signer's state lives (default $MESH_STATE_DIR, else the user's state directory).",
)
_format = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How it is shown.",
)


@click.group(context_settings=CONTEXT)
def mesh_signer() -> None:
    """Look after a signer, on its machine and as its user. Without a command, mesh-signer is the signer.

    Exit status: 0 yes, or done; 1 no: something is wrong; 2 the options or the input cannot be used.
    """


@mesh_signer.command()
@_state_dir
@_format
def keys(*, state_dir: str | None, format_: str) -> int:
    """List the keys that the signer holds, with the pin of each.

    \b
    Examples:
      mesh-signer keys
    """
    from pki.signing.memory import pin_of
    from twisted_mesh.cli.ctl.output import put_json, put_table

    with _opened(state_dir) as record:
        rows = record.all_keys()
    if format_ == "json":
        told = [
            {
                "name": row.held.name,
                "purpose": row.held.purpose,
                "algorithm": str(row.held.algorithm),
                "label": row.label,
                "store": row.store,
                "pin": pin_of(row.held.spki),
            }
            for row in rows
        ]
        put_json({"keys": told})
        return 0
    put_table(
        ("NAME", "ALGORITHM", "LABEL", "STORE", "PIN"),
        [
            (row.held.name, str(row.held.algorithm), row.label, row.store, pin_of(row.held.spki))
            for row in rows
        ],
    )
    return 0


@mesh_signer.command()
@click.argument("pin")
@click.option(
    "--for", "for_", metavar="DURATION", default="24h", help="For how long (default 24h)."
)
@_state_dir
def approve(*, pin: str, for_: str, state_dir: str | None) -> int:
    """Let the signer's roots certify one more CA, whose key is kept elsewhere, for a while.

    PIN is that key's, sha256/BASE64, as the signer's refusal says it and whoever has the key can show it. The signer
    need not be told: it looks, and its log says who has approved.

    \b
    Examples:
      mesh-signer approve sha256/n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg= --for 1h
    """
    from pki.svid.spki_pin import SpkiHash
    from pki.validity import parse_lifetime, rfc3339
    from twisted_mesh.cli.ctl.output import put

    found, until = SpkiHash.parse(pin), datetime.now(UTC) + parse_lifetime(for_)
    with _opened(state_dir) as record, record.changing():
        record.approve(str(found), until, _person())
        domain = record.trust_domain
    put(f"Until {rfc3339(until)} the roots of {domain} may certify a CA with the key {found}\n")
    return 0


@mesh_signer.command()
@click.argument("file", type=click.Path(path_type=Path))
@_state_dir
def adopt(*, file: Path, state_dir: str | None) -> int:
    """Show the signer a CA certificate that somebody else has made for a key of its own.

    What that key signs is then held against its name and its dates. FILE has one or more certificates, in PEM or DER.

    \b
    Examples:
      mesh-signer adopt issuing.crt
    """
    from pki.svid.x509svid import load_certificates, subject_of
    from twisted_mesh.cli.ctl.output import put
    from twisted_mesh.state.directory import read_file

    found = load_certificates(read_file(file, "FILE"), str(file))
    with _opened(state_dir) as record, record.changing():
        told = [f"{subject_of(one)} is the CA of {record.adopt(one, _person())}\n" for one in found]
    put("".join(told))
    return 0


@mesh_signer.command()
@click.argument("name")
@_state_dir
def listed(*, name: str, state_dir: str | None) -> int:
    """Print the serials that the last CRL of a key lists, and when each of these certificates ends.

    A CA that does not know them, as after a break-in or a restore, has to revoke them again: no CRL is signed that
    leaves one out before it has ended.

    \b
    Examples:
      mesh-signer listed issuing-2
    """
    from pki.serial import serial_hex
    from pki.validity import rfc3339
    from twisted_mesh.cli.ctl.output import put_table

    with _opened(state_dir) as record:
        found = record.listed(record.key(name).held)
    put_table(
        ("SERIAL", "ENDS"),
        [
            (serial_hex(serial), "was never signed here" if end is None else rfc3339(end))
            for serial, end in sorted(found.items())
        ],
    )
    return 0


@mesh_signer.group()
def log() -> None:
    """Read the log of all that the signer has signed."""


@log.command()
@_state_dir
@_format
def verify(*, state_dir: str | None, format_: str) -> int:
    """Look for whatever is cut, edited, reordered or missing in the whole log, and hold it against the record.

    Each line is bound to the one before by a hash. Exit status 1 if anything is wrong.

    \b
    Examples:
      mesh-signer log verify
    """
    from twisted_mesh.cli.ctl.output import put, put_json
    from twisted_mesh.cli.stdout import say
    from twisted_mesh.signer.signing_log import DamagedLog, End, lines_of, verified

    with _opened(state_dir) as record:
        known, path = record.log_end, record.path.with_name("signatures.log")
    counts: dict[str, int] = {}
    is_known, end = known == End(), End()
    problem = ""
    try:
        with path.open("rb") as file:
            for line, end in verified(lines_of(file)):
                counts[line.event] = counts.get(line.event, 0) + 1
                is_known = is_known or end == known
        if not is_known:
            problem = f"it does not hold line {known.seq}, which the record remembers: it was cut or replaced"
    except DamagedLog as error:
        problem = str(error)
    if format_ == "json":
        put_json(
            {
                "ok": not problem,
                "problem": problem,
                "lines": end.seq,
                "events": counts,
                "sha256": end.digest,
            }
        )
    elif not problem:
        told = ", ".join(f"{count} {event}" for event, count in sorted(counts.items())) or "none"
        put(f"{path} is whole: {end.seq} lines ({told}), the last with the SHA-256 {end.digest}\n")
    if problem:
        say("mesh-signer", f"{path}: {problem}")
    return 1 if problem else 0


@contextmanager
def _opened(state_dir: str | None) -> "Iterator[Record]":
    """The record of the signer, which may be running. Raises :class:`pki.errors.PkiError`."""
    from twisted_mesh.signer.directory import SignerDirectory
    from twisted_mesh.signer.record import Record
    from twisted_mesh.state.environment import default_state_dir

    state = Path(state_dir) if state_dir else default_state_dir()
    record = Record(SignerDirectory(state).record)
    record.open(None)
    try:
        yield record
    finally:
        record.close()


def _person() -> str:
    return f"person:uid:{os.getuid()}"


_program = with_version(mesh_signer)


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands of ``mesh-signer``; returns its exit status."""
    return run_program("mesh-signer", _program, arguments)
