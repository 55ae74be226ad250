"""What the commands of ``pki-inspect`` have in common: options, files, and how a result is printed.

Nothing is imported here but click: a command loads cryptography when it runs, so ``--help`` is quick.
"""

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.stdout import abandon_stdout

if TYPE_CHECKING:
    from cryptography import x509

    from pki.ct.log_list import LogList
    from pki.ct.receipt import SctDemand
    from pki.spiffe import SpiffePattern
    from twisted_mesh.cli.inspect_verify import File

_MAX_SIZE = 10 * 1024 * 1024
_MAX_CRL_SIZE = 64 * 1024 * 1024

FORMAT = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Text for people, or JSON for programs.",
    show_default=True,
)
AT = click.option(
    "--at", metavar="TIME", help="Judge as of that time, like 2026-11-23T10:00:00Z; else now."
)
CT_LOGS = click.option(
    "--ct-logs",
    metavar="FILE",
    help="Logs of certificates that are known: verify receipts (SCTs) by their keys.",
)
REQUIRE_SCT = click.option(
    "--require-sct",
    type=click.IntRange(0, 16),
    metavar="N",
    help="From how many logs of --ct-logs it must have receipts; 1 where that is given.",
)


def known_logs(name: str | None) -> "LogList | None":
    """Those of ``--ct-logs``; None where it is not given. Raises :class:`Unusable`."""
    if name is None:
        return None
    from pki.ct.log_list import LogList
    from pki.errors import PkiError

    try:
        return LogList.parse(read(name, "list of logs"))
    except PkiError as error:
        raise Unusable(f"{source_name(name)}: {error}") from None


def demanded_receipts(name: str | None, number: int | None) -> "SctDemand | None":
    """What ``--ct-logs`` and ``--require-sct`` ask for; None where nothing is asked. Raises :class:`Unusable`."""
    logs = known_logs(name)
    if logs is None:
        if number:
            raise Unusable(
                "--require-sct needs the logs that are known: name their file (--ct-logs)"
            )
        return None
    from pki.ct.receipt import SctDemand

    return SctDemand(1 if number is None else number, logs)


def moment_of(at: str | None) -> datetime:
    """The time that ``--at`` names; else now. Raises :class:`Unusable`."""
    from pki.errors import PkiError
    from pki.validity import parse_rfc3339
    from twisted_mesh.runtime.clock import wall_clock

    if at is None:
        return wall_clock()
    try:
        return parse_rfc3339(at)
    except PkiError as error:
        raise Unusable(f"--at: {error}") from None


def spiffe_patterns(texts: Sequence[str]) -> "list[SpiffePattern]":
    """Those of ``--spiffe-id``. Raises :class:`Unusable`."""
    from pki.errors import PkiError
    from pki.spiffe import SpiffePattern

    try:
        return [SpiffePattern.parse(text) for text in texts]
    except PkiError as error:
        raise Unusable(f"--spiffe-id: {error}") from None


def address_text(text: str) -> str:
    """An IP address, as it is usually written. Raises :class:`Unusable`."""
    from ipaddress import ip_address

    from pki.errors import printable

    try:
        return str(ip_address(text))
    except ValueError:
        raise Unusable(
            f"--ip: {printable(text, 60)!r} is no IP address: write it like 127.0.0.1 or ::1"
        ) from None


def mail_text(text: str) -> str:
    """A mail address, with its host in lower case. Raises :class:`Unusable`."""
    from pki.errors import PkiError
    from pki.inspect.mail_name import MailAddress

    try:
        return str(MailAddress.parse(text))
    except PkiError as error:
        raise Unusable(f"--email: {error}") from None


def judged_certificates(name: str) -> "tuple[x509.Certificate, ...]":
    """All certificates of a file, at least one. Raises :class:`Unusable` where one cannot be judged."""
    from pki.errors import PkiError
    from pki.inspect.describe import certificates

    try:
        return certificates(read(name))
    except PkiError as error:
        raise Unusable(f"{source_name(name)}: {error}") from None


def certificates_to_judge(name: str, lost: list[str]) -> "tuple[x509.Certificate, ...]":
    """Those that can be judged by, at least one; why the others cannot is added to ``lost``."""
    from pki.errors import PkiError
    from pki.inspect.describe import readable_certificates

    try:
        found, others = readable_certificates(read(name))
    except PkiError as error:
        raise Unusable(f"{source_name(name)}: {error}") from None
    lost += (f"{source_name(name)}: {why}" for why in others)
    return found


def named_files(names: Sequence[str], what: str) -> "list[File]":
    """Files by their names. Raises :class:`Unusable`."""
    from twisted_mesh.cli.inspect_verify import File

    return [File(source_name(name), read(name, what, _MAX_CRL_SIZE)) for name in names]


def source_name(thing: str) -> str:
    """What a file is called in sentences."""
    from pki.errors import printable

    return "standard input" if thing == "-" else printable(thing)


def read(thing: str, what: str = "certificate", limit: int = _MAX_SIZE) -> bytes:
    """A file's bytes, or standard input's; no more than any sensible file has."""
    from pathlib import Path

    from twisted_mesh.state.reading import open_readable, read_up_to

    try:
        if thing == "-":
            data: bytes = sys.stdin.buffer.read(limit + 1) if sys.stdin else b""
        else:
            with open(open_readable(Path(thing)), "rb") as file:
                data = read_up_to(file.fileno(), limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise Unusable(
            f"{source_name(thing)} cannot be read ({reason or error}): name a {what}'s file"
        ) from None
    if len(data) > limit:
        raise Unusable(
            f"{source_name(thing)} is larger than {limit // 1024 // 1024} MB: give the {what}s only"
        )
    return data


def print_result(text: str) -> None:
    """All of the output at once. A reader that has gone is no failure of ours."""
    if sys.stdout is None:
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    try:
        click.echo(text, file=sys.stdout, color=colour)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
