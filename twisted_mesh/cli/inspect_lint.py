"""``pki-inspect lint``: which rules certificates break, and which were not looked at.

Nothing is imported here but click: the command loads cryptography when it runs, so ``--help`` is quick.
"""

import click

from twisted_mesh.cli.inspect_input import FORMAT, print_result, read, source_name
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.cli.stdout import say


@click.command()
@click.argument("things", metavar="THING...", nargs=-1, required=True)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Choice(["svid", "ca", "web", "any"]),
    help="What certificates are held to; by default what each seems to be for. Repeatable: all count.",
)
@FORMAT
def lint(things: tuple[str, ...], profiles: tuple[str, ...], format_: str) -> int:
    """Say which rules certificates, CSRs and CRLs break, each with its section and a remedy.

    THING is a file in PEM, which may hold several, or in DER; - is standard input. Whose issuer is
    among them is held against it too. Profiles: svid (X509-SVID, and what endpoints refuse), ca (a CA
    above such), web (CA/Browser Forum BR, in part), any (RFC 5280 alone, which counts for all).

    Exit status: 0 no findings; 1 findings; 2 not all of the input could be read. What was not looked
    at is named. Whether a certificate holds now, is trusted or revoked, verify says.

    \b
    Examples:
      pki-inspect lint svid.pem root.crt
      pki-inspect lint request.csr --format json
      openssl s_client -connect example.org:443 -showcerts </dev/null | pki-inspect lint -
      pki-inspect lint server.pem --profile web --profile svid
    """
    from pki.inspect.lint_report import lint_files
    from pki.inspect.linted import LintProfile
    from twisted_mesh.cli import inspect_lint_output

    files: list[tuple[str, bytes]] = []
    lost: list[str] = []
    for thing in things:
        try:
            files.append((source_name(thing), read(thing)))
        except Unusable as error:
            lost.append(error.message)
    reports, unread = lint_files(files, [LintProfile(profile) for profile in profiles])
    lost += unread
    looked_at = [(source, report) for source, report in reports if report.applied]
    if reports and not looked_at:
        kinds = ", ".join(dict.fromkeys(report.what for _, report in reports))
        lost.append(f"there is only what is not looked at ({kinds}): give a certificate or a CSR")
    if looked_at:
        shown = (
            inspect_lint_output.lint_json if format_ == "json" else inspect_lint_output.lint_text
        )
        print_result(shown(reports, lost))
    for sentence in lost[:-1]:
        say("pki-inspect", sentence)
    if lost:
        raise Unusable(lost[-1])
    return REFUSED if any(report.findings for _, report in reports) else DONE
