"""``mesh-ctl ca root csr`` and ``install``: the command lines of the CA's machine, where a root is elsewhere."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl.key_store_options import key_store_option, token_pin_option
from twisted_mesh.cli.ctl.options import (
    Reach,
    format_option,
    must_be_answered,
    output_file,
    reaching,
    yes_option,
)

_passphrase_option = click.option(
    "--key-passphrase-file",
    metavar="PATH",
    help="Before the CA's first start: what its keys are encrypted with.",
)


@click.command("csr")
@click.option("--out", metavar="FILE", help="Where the CSR goes.  [default: standard output]")
@click.option(
    "--new-key",
    is_flag=True,
    help="Of another key: the one that waits is deleted, and a certificate for it is of no use.",
)
@click.option(
    "--algorithm",
    default="ec-p256",
    show_default=True,
    help="Before the CA's first start: of its first issuing key, as for mesh-ca --issuing-key.",
)
@key_store_option
@token_pin_option
@_passphrase_option
@reaching
@format_option
def csr(
    *,
    reach: Reach,
    out: str | None,
    new_key: bool,
    algorithm: str,
    key_stores: tuple[str, ...],
    token_pin_file: str | None,
    key_passphrase_file: str | None,
    format_: str,
) -> int:
    """Show the CSR of the next issuing CA, for a root that is offline or a CA of somebody else's.

    Its key is made where there is none, and never leaves the CA. Asked again, it is the same CSR,
    until its certificate is installed. In a state directory where no CA ever started it is that of
    the first issuing CA: such a CA never has a root's key.

    \b
    Examples:
      mesh-ctl ca root csr --out issuing.csr
      mesh-ctl ca root csr --state-dir /var/lib/mesh --trust-domain mesh.local --out issuing.csr
    """
    from twisted_mesh.cli.ctl import ca_root_certification_actions as actions

    asked = actions.Asking(
        output_file(out) if out is not None else None, new_key, format_ == "json"
    )
    if actions.is_first(reach):
        passphrase_file = Path(key_passphrase_file) if key_passphrase_file else None
        from twisted_mesh.cli.ctl.key_stores import Named

        named = Named.of(key_stores, token_pin_file)
        return asked.first(reach, algorithm, passphrase_file, named)
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, asked)


@click.command("install")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--dry-run", is_flag=True, help="Check all of it, and install nothing.")
@key_store_option
@token_pin_option
@_passphrase_option
@yes_option
@reaching
@format_option
def install(
    *,
    reach: Reach,
    files: tuple[str, ...],
    dry_run: bool,
    key_stores: tuple[str, ...],
    token_pin_file: str | None,
    key_passphrase_file: str | None,
    yes: bool,
    format_: str,
) -> int:
    """Install what was certified elsewhere: the issuing CA's certificate, and the root's CRL.

    FILE is PEM or DER, each with one thing or several: the certificate that was made of the CSR,
    those of other CAs between it and its root, and CRLs of roots. All of it is checked; whatever
    does not fit is refused with every reason, and then nothing is installed. The issuing CA is the
    prepared one then, and takes over by itself. Before a CA's first start the root is among the files.

    \b
    Examples:
      mesh-ctl ca root install issuing-2.crt root.crl
      mesh-ctl ca root install issuing.crt their-intermediate.crt their-root.crt --dry-run
    """
    from twisted_mesh.cli.ctl import ca_root_certification_actions as actions

    if not dry_run:
        must_be_answered(yes)
    work = actions.Installing.of(
        map(Path, files), dry_run=dry_run, yes=yes, as_json=format_ == "json"
    )
    if actions.is_first(reach):
        from twisted_mesh.cli.ctl.key_stores import Named

        passphrase_file = Path(key_passphrase_file) if key_passphrase_file else None
        return work.first(reach, passphrase_file, Named.of(key_stores, token_pin_file))
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, work)
