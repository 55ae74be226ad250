"""``pki-inspect``: shows certificates, judges chains, lints, looks at TLS servers, and tells what belongs together.

Nothing is imported here but click: a command loads cryptography when it runs, so ``--help`` is quick.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.inspect_fingerprint import fingerprint
from twisted_mesh.cli.inspect_input import (
    AT,
    CT_LOGS,
    FORMAT,
    REQUIRE_SCT,
    address_text,
    certificates_to_judge,
    demanded_receipts,
    judged_certificates,
    known_logs,
    mail_text,
    moment_of,
    named_files,
    print_result,
    read,
    source_name,
    spiffe_patterns,
)
from twisted_mesh.cli.inspect_lint import lint
from twisted_mesh.cli.inspect_match import match
from twisted_mesh.cli.inspect_needs_renewal import needs_renewal
from twisted_mesh.cli.inspect_probe import probe
from twisted_mesh.cli.program import (
    CONTEXT,
    Unusable,
    run_program,
    with_version,
)
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.cli.stdout import say

if TYPE_CHECKING:
    from pki.codes import Code


@click.group(context_settings=CONTEXT)
def cli() -> None:
    """Show certificates and CSRs, verify chains, lint, look at TLS servers, and explain codes.

    And what to pin by (fingerprint), whether it is time to renew, and whether keys and certificates match.

    Exit status: 0 yes, shown, valid or without findings; 1 no, invalid, refused, or findings; 2 the input or the
    options cannot be used, or not all of the input could be read: the rest is shown; 3 (probe) the server
    cannot be reached in time, or speaks no TLS.

    \b
    Examples:
      pki-inspect show svid.pem
      openssl s_client -connect localhost:9443 -showcerts </dev/null | pki-inspect show -
      pki-inspect verify svid.pem --roots root.crt
      pki-inspect lint svid.pem root.crt
      pki-inspect probe localhost:9443 --svid me
      pki-inspect fingerprint root.crt
      pki-inspect needs-renewal svid.pem --within 8h
      pki-inspect match svid.pem svid_key.pem
      pki-inspect explain unknown-authority
    """


@cli.command()
@click.argument("things", metavar="THING...", nargs=-1, required=True)
@CT_LOGS
@AT
@FORMAT
def show(things: tuple[str, ...], ct_logs: str | None, at: str | None, format_: str) -> int:
    """Show everything that is in certificates and CSRs, and what CRLs and OCSP responses say.

    THING is a file in PEM, which may hold several, or in DER; - is standard input. Private keys are
    named and never shown. With --ct-logs the receipts of logs (SCTs) in certificates are verified: what
    they are for depends on the issuer, whose certificate must be among THINGs.

    \b
    Examples:
      pki-inspect show svid.pem
      pki-inspect show svid.pem --ct-logs logs.json
      pki-inspect show request.csr root.crt --format json
      curl -s http://localhost:8080/api/v1/ca | pki-inspect show -
    """
    from pki.errors import PkiError
    from pki.inspect.contents import held as parts
    from pki.inspect.describe import describe
    from pki.inspect.description import Description
    from twisted_mesh.cli import inspect_output

    now = moment_of(at)
    logs = known_logs(ct_logs)
    found: list[tuple[str, Description]] = []
    ders: list[bytes] = []
    lost: list[str] = []
    for thing in things:
        name = source_name(thing)
        try:
            data = read(thing)
            held = describe(data, now)
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
        ders += (part.der for part in parts(data))
    if logs is not None:
        from pki.inspect.receipts import with_receipts

        told = [description for _, description in found]
        verified = with_receipts(list(zip(ders, told, strict=True)), (), logs, now)
        found = [(name, one) for (name, _), one in zip(found, verified, strict=True)]
    if found:
        as_json = format_ == "json"
        print_result(
            inspect_output.shown_json(found) if as_json else inspect_output.shown_text(found)
        )
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
    type=click.Choice(["svid", "server", "client", "ca", "any"]),
    default="svid",
    show_default=True,
    help="What it must be good for: svid is the mesh's verdict, the others are by the web's rules.",
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
    "--email",
    "emails",
    multiple=True,
    metavar="A",
    help="A mail address that it must be valid for. Repeatable: all must match.",
)
@click.option(
    "--max-depth",
    type=click.IntRange(0, 255),
    metavar="N",
    help="How many intermediates may be in its chain that are not self-issued.",
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
@CT_LOGS
@REQUIRE_SCT
@AT
@FORMAT
def verify(
    *,
    cert: str,
    roots: tuple[str, ...],
    intermediates: tuple[str, ...],
    purpose: str,
    patterns: tuple[str, ...],
    hostnames: tuple[str, ...],
    addresses: tuple[str, ...],
    emails: tuple[str, ...],
    max_depth: int | None,
    crls: tuple[str, ...],
    answers: tuple[str, ...],
    ct_logs: str | None,
    require_sct: int | None,
    at: str | None,
    format_: str,
) -> int:
    """Judge a certificate as every endpoint of the mesh does, or the web, and show each link of its chain.

    CERT is a file in PEM or DER: the leaf first, then intermediates if they are not given apart; - is
    standard input. A CRL or an OCSP response that cannot be relied on ends with status 2.

    Of what is for TLS, server and client are judged by the web's rules (RFC 5280, CA/Browser Forum),
    and SVIDs pass; ca is for what issues, any for the chain alone (RFC 5280).

    \b
    Examples:
      pki-inspect verify svid.pem --roots root.crt
      pki-inspect verify svid.pem --roots root.crt --crl issuing.crl --crl root.crl
      pki-inspect verify leaf.pem --intermediates issuing.pem --roots root.crt --purpose server --hostname localhost
      pki-inspect verify svid.pem --roots root.crt --spiffe-id 'spiffe://mesh.local/service/*'
      pki-inspect verify svid.pem --roots root.crt --at 2026-11-23T10:00:00Z --format json
    """
    from pki.inspect.web_rules import WebPurpose
    from pki.svid.x509svid import Purpose
    from twisted_mesh.cli import inspect_output, inspect_verify

    now = moment_of(at)
    wanted = spiffe_patterns(patterns)
    hosts = (*hostnames, *map(address_text, addresses))
    mailboxes = tuple(map(mail_text, emails))
    leaf, *beside = judged_certificates(cert)
    lost: list[str] = []
    others = [
        *beside,
        *(found for name in intermediates for found in certificates_to_judge(name, lost)),
    ]
    trusted = [certificates_to_judge(name, lost) for name in roots]
    try:
        verdict, links = inspect_verify.verify(
            leaf,
            others,
            trusted,
            now=now,
            purpose=Purpose.ANY if purpose == Purpose.ANY else WebPurpose(purpose),
            patterns=wanted,
            hosts=hosts,
            emails=mailboxes,
            max_depth=max_depth,
            crls=named_files(crls, "CRL"),
            answers=named_files(answers, "OCSP response"),
            sent=1 + len(beside),
            demand=demanded_receipts(ct_logs, require_sct),
        )
    except inspect_verify.UnusableEvidence as error:
        raise Unusable(str(error)) from None
    if format_ == "json":
        print_result(inspect_output.verdict_json(verdict, links, lost))
    else:
        print_result(inspect_output.verdict_text(verdict, links, purpose, now))
    for sentence in lost:
        say("pki-inspect", f"{sentence}; it was left out")
    return DONE if verdict.ok else REFUSED


@cli.command()
@click.argument("codes", metavar="[CODE]...", nargs=-1)
@FORMAT
def explain(codes: tuple[str, ...], format_: str) -> int:
    """Say what a code means, and what to do about it; without CODE, list all.

    CODE is the name that a refusal has in logs, metrics, JSON and messages.

    \b
    Examples:
      pki-inspect explain stale-revocation
      pki-inspect explain --format json
    """
    from pki.codes import Code
    from twisted_mesh.cli import inspect_codes_output

    found = [_code(text) for text in codes]
    if format_ == "json":
        print_result(inspect_codes_output.codes_json(found or Code))
    else:
        told = inspect_codes_output
        print_result(told.codes_text(found) if found else told.codes_list(Code))
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


cli.add_command(lint)
cli.add_command(probe)
cli.add_command(fingerprint)
cli.add_command(needs_renewal)
cli.add_command(match)
with_version(cli)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program ``pki-inspect``; returns its exit status."""
    warnings.simplefilter("ignore")  # a library's deprecations are nothing that a user can act on
    return run_program("pki-inspect", cli, arguments)
