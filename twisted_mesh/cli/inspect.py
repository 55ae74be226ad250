"""``pki-inspect``: shows certificates and judges chains.

Nothing is imported here but click: a command loads cryptography when it runs, so ``--help`` is quick.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.program import (
    CONTEXT,
    Unusable,
    abandon_stdout,
    run_program,
    say,
    with_version,
)
from twisted_mesh.cli.status import DONE, REFUSED

if TYPE_CHECKING:
    from cryptography import x509

    from pki.codes import Code
    from pki.spiffe import SpiffePattern
    from twisted_mesh.cli.inspect_verify import File

_MAX_SIZE = 10 * 1024 * 1024
_MAX_CRL_SIZE = 64 * 1024 * 1024

_FORMAT = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Text for people, or JSON for programs.",
    show_default=True,
)
_AT = click.option(
    "--at", metavar="TIME", help="Judge as of that time, like 2026-11-23T10:00:00Z; else now."
)


@click.group(context_settings=CONTEXT)
def cli() -> None:
    """Show certificates and CSRs, verify chains, and explain codes.

    Exit status: 0 shown or valid; 1 invalid; 2 the input or the options cannot be used, or not all of
    the input could be read: the rest is shown.

    \b
    Examples:
      pki-inspect show svid.pem
      openssl s_client -connect localhost:9443 -showcerts </dev/null | pki-inspect show -
      pki-inspect verify svid.pem --roots root.crt
      pki-inspect explain unknown-authority
    """


@cli.command()
@click.argument("things", metavar="THING...", nargs=-1, required=True)
@_AT
@_FORMAT
def show(things: tuple[str, ...], at: str | None, format_: str) -> int:
    """Show everything that is in certificates and CSRs, and what CRLs and OCSP responses say.

    THING is a file in PEM, which may hold several, or in DER; - is standard input. Private keys are
    named and never shown.

    \b
    Examples:
      pki-inspect show svid.pem
      pki-inspect show request.csr root.crt --format json
      curl -s http://localhost:8080/api/v1/ca | pki-inspect show -
    """
    from pki.errors import PkiError
    from pki.inspect.describe import describe
    from pki.inspect.description import Description
    from twisted_mesh.cli import inspect_output

    now = _moment(at)
    found: list[tuple[str, Description]] = []
    lost: list[str] = []
    for thing in things:
        name = _name(thing)
        try:
            held = describe(_read(thing), now)
        except PkiError as error:
            lost.append(f"{name}: {error}")
            continue
        except Unusable as error:
            lost.append(error.message)
            continue
        if any(description.is_shown for description in held):
            lost += inspect_output.losses(name, held)
        else:
            kinds = ", ".join(dict.fromkeys(description.what for description in held))
            lost.append(
                f"{name} holds only what is not shown: {kinds}; give a certificate or a CSR"
            )
            continue
        found += ((name, description) for description in held)
    if found:
        as_json = format_ == "json"
        _print(inspect_output.shown_json(found) if as_json else inspect_output.shown_text(found))
    for sentence in lost[:-1]:
        say("pki-inspect", sentence)
    if lost:
        raise Unusable(lost[-1])
    return DONE


@cli.command()
@click.argument("cert")
@click.option(
    "--roots",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Roots to trust, of one trust domain: that in their URI name, else CERT's own. Repeatable.",
)
@click.option(
    "--intermediates", multiple=True, metavar="FILE", help="Issuing CAs, in any order. Repeatable."
)
@click.option(
    "--purpose",
    type=click.Choice(["svid", "server", "client"]),
    default="svid",
    show_default=True,
    help="What it must be good for: either end of a connection, or both (svid).",
)
@click.option(
    "--spiffe-id",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="A SPIFFE ID that it must have; * is one path segment, a last ** any rest. Repeatable: all must match.",
)
@click.option(
    "--hostname",
    "hostnames",
    multiple=True,
    metavar="N",
    help="A host name that it must be valid for. Repeatable: all must match.",
)
@click.option(
    "--ip",
    "addresses",
    multiple=True,
    metavar="A",
    help="An IP address that it must be valid for. Repeatable: all must match.",
)
@click.option(
    "--crl",
    "crls",
    multiple=True,
    metavar="FILE",
    help="CRLs to look it and its issuing CAs up in; then each of them needs one. Repeatable.",
)
@click.option(
    "--ocsp",
    "answers",
    multiple=True,
    metavar="FILE",
    help="OCSP responses about it or its issuing CAs. Repeatable.",
)
@_AT
@_FORMAT
def verify(
    *,
    cert: str,
    roots: tuple[str, ...],
    intermediates: tuple[str, ...],
    purpose: str,
    patterns: tuple[str, ...],
    hostnames: tuple[str, ...],
    addresses: tuple[str, ...],
    crls: tuple[str, ...],
    answers: tuple[str, ...],
    at: str | None,
    format_: str,
) -> int:
    """Judge a certificate as every endpoint of the mesh does, and show each link of its chain.

    CERT is a file in PEM or DER: the leaf first, then intermediates if they are not given apart; - is
    standard input. A CRL or an OCSP response that cannot be relied on ends with status 2.

    \b
    Examples:
      pki-inspect verify svid.pem --roots root.crt
      pki-inspect verify svid.pem --roots root.crt --crl issuing.crl --crl root.crl
      pki-inspect verify leaf.pem --intermediates issuing.pem --roots root.crt --purpose server
      pki-inspect verify svid.pem --roots root.crt --spiffe-id 'spiffe://mesh.local/service/*'
      pki-inspect verify svid.pem --roots root.crt --at 2026-11-23T10:00:00Z --format json
    """
    from pki.svid.x509svid import Purpose
    from twisted_mesh.cli import inspect_output, inspect_verify

    now = _moment(at)
    wanted = _patterns(patterns)
    hosts = (*hostnames, *map(_address, addresses))
    leaf, *beside = _certificates(cert)
    lost: list[str] = []
    others = [*beside, *(found for name in intermediates for found in _readable(name, lost))]
    trusted = [_readable(name, lost) for name in roots]
    try:
        verdict, links = inspect_verify.verify(
            leaf,
            others,
            trusted,
            now=now,
            purpose=Purpose(purpose),
            patterns=wanted,
            hosts=hosts,
            crls=_files(crls, "CRL"),
            answers=_files(answers, "OCSP response"),
            sent=1 + len(beside),
        )
    except inspect_verify.UnusableEvidence as error:
        raise Unusable(str(error)) from None
    if format_ == "json":
        _print(inspect_output.verdict_json(verdict, links, lost))
    else:
        _print(inspect_output.verdict_text(verdict, links, purpose, now))
    for sentence in lost:
        say("pki-inspect", f"{sentence}; it was left out")
    return DONE if verdict.ok else REFUSED


@cli.command()
@click.argument("codes", metavar="[CODE]...", nargs=-1)
@_FORMAT
def explain(codes: tuple[str, ...], format_: str) -> int:
    """Say what a code means, and what to do about it; without CODE, list all.

    CODE is the name that a refusal has in logs, metrics, JSON and messages.

    \b
    Examples:
      pki-inspect explain stale-revocation
      pki-inspect explain --format json
    """
    from pki.codes import Code
    from twisted_mesh.cli import inspect_output

    found = [_code(text) for text in codes]
    if format_ == "json":
        _print(inspect_output.codes_json(found or Code))
    else:
        _print(inspect_output.codes_text(found) if found else inspect_output.codes_list(Code))
    return DONE


def _code(text: str) -> "Code":
    from difflib import get_close_matches

    from pki.codes import Code
    from pki.errors import printable

    known = Code.parse(text)
    if known is None:
        like = get_close_matches(text, list(Code), 1)
        hint = f"did you mean {like[0]}?" if like else "pki-inspect explain lists all"
        raise Unusable(f"{printable(text, 60)} is no code of this version: {hint}")
    return known


def _moment(at: str | None) -> datetime:
    from pki.errors import PkiError
    from pki.validity import parse_rfc3339
    from twisted_mesh.runtime.clock import wall_clock

    if at is None:
        return wall_clock()
    try:
        return parse_rfc3339(at)
    except PkiError as error:
        raise Unusable(f"--at: {error}") from None


def _patterns(texts: Sequence[str]) -> "list[SpiffePattern]":
    from pki.errors import PkiError
    from pki.spiffe import SpiffePattern

    try:
        return [SpiffePattern.parse(text) for text in texts]
    except PkiError as error:
        raise Unusable(f"--spiffe-id: {error}") from None


def _address(text: str) -> str:
    from ipaddress import ip_address

    from pki.errors import printable

    try:
        return str(ip_address(text))
    except ValueError:
        raise Unusable(
            f"--ip: {printable(text, 60)!r} is no IP address: write it like 127.0.0.1 or ::1"
        ) from None


def _certificates(name: str) -> "tuple[x509.Certificate, ...]":
    from pki.errors import PkiError
    from pki.inspect.describe import certificates

    try:
        return certificates(_read(name))
    except PkiError as error:
        raise Unusable(f"{_name(name)}: {error}") from None


def _readable(name: str, lost: list[str]) -> "tuple[x509.Certificate, ...]":
    """Those that can be judged by, at least one; why the others cannot is added to ``lost``."""
    from pki.errors import PkiError
    from pki.inspect.describe import readable_certificates

    try:
        found, others = readable_certificates(_read(name))
    except PkiError as error:
        raise Unusable(f"{_name(name)}: {error}") from None
    lost += (f"{_name(name)}: {why}" for why in others)
    return found


def _files(names: Sequence[str], what: str) -> "list[File]":
    from twisted_mesh.cli.inspect_verify import File

    return [File(_name(name), _read(name, what, _MAX_CRL_SIZE)) for name in names]


def _name(thing: str) -> str:
    from pki.errors import printable

    return "standard input" if thing == "-" else printable(thing)


def _read(thing: str, what: str = "certificate", limit: int = _MAX_SIZE) -> bytes:
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
            f"{_name(thing)} cannot be read ({reason or error}): name a {what}'s file"
        ) from None
    if len(data) > limit:
        raise Unusable(
            f"{_name(thing)} is larger than {limit // 1024 // 1024} MB: give the {what}s only"
        )
    return data


def _print(text: str) -> None:
    """All of the output at once. A reader that has gone is no failure of ours."""
    if sys.stdout is None:
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    try:
        click.echo(text, file=sys.stdout, color=colour)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()


with_version(cli)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program ``pki-inspect``; returns its exit status."""
    warnings.simplefilter("ignore")  # a library's deprecations are nothing that a user can act on
    return run_program("pki-inspect", cli, arguments)
