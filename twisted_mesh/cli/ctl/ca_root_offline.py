"""``mesh-ctl ca root offline`` and ``sign``: the command lines of the machine where an offline root is."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl.key_store_options import key_store_option, token_pin_option
from twisted_mesh.cli.ctl.options import format_option, must_be_answered, yes_option

_passphrase_option = click.option(
    "--key-passphrase-file",
    metavar="PATH",
    help="What the root's key is encrypted with, or is to be.",
)
_root_option = click.option(
    "--root", required=True, metavar="DIR", help="Where the offline root is."
)


@click.command("offline")
@click.argument("directory")
@click.option(
    "--trust-domain",
    default="mesh.local",
    show_default=True,
    help="Whose root it is to be.",
)
@click.option(
    "--algorithm",
    default="rsa-4096",
    show_default=True,
    help="Of its key, as for mesh-ca --root-key.",
)
@click.option(
    "--generation",
    default=1,
    show_default=True,
    type=click.IntRange(1, 999_999_999),
    help="One more than that of the root that it is to follow.",
)
@click.option(
    "--root-key",
    metavar="FILE|URI",
    help="In place of a new key in a file: a root's detached key; or pkcs11:… or signer:…, where it is made, or is.",
)
@click.option("--root-cert", metavar="FILE", help="With --root-key: that root's certificate.")
@click.option(
    "--root-crl",
    metavar="FILE",
    help="With --root-key: the CRL that its CA has; what it revoked stays revoked.",
)
@key_store_option
@token_pin_option
@_passphrase_option
@format_option
def offline(
    *,
    directory: str,
    trust_domain: str,
    algorithm: str,
    generation: int,
    root_key: str | None,
    root_cert: str | None,
    root_crl: str | None,
    key_stores: tuple[str, ...],
    token_pin_file: str | None,
    key_passphrase_file: str | None,
    format_: str,
) -> int:
    """Make an offline root in DIRECTORY, on a machine or medium that no CA is ever on.

    With --root-key and --root-cert it is one that a CA had, after ca detach-root. No CA runs here, and
    nothing is sent anywhere. All that the root ever does is in its own audit log, in that directory.

    \b
    Examples:
      mesh-ctl ca root offline /media/root --trust-domain mesh.local
      mesh-ctl ca root offline /media/root --root-key root.key --root-cert root.crt --root-crl root.crl
      mesh-ctl ca root offline /media/root --root-key "pkcs11:token=root?module-path=/usr/lib/module.so" \\
          --token-pin-file /media/pin
    """
    from twisted_mesh.cli.ctl import ca_root_offline_actions
    from twisted_mesh.cli.ctl.key_stores import Named, is_uri

    made_in = root_key if root_key is not None and root_cert is None and is_uri(root_key) else None
    if made_in is not None:
        root_key = None
    if (root_key is None) != (root_cert is None) or (root_crl and not root_key):
        raise click.UsageError("--root-key and --root-cert go together, and --root-crl with both")
    brought = None
    if root_key is not None and root_cert is not None:
        brought = ca_root_offline_actions.Brought(
            Path(root_key), Path(root_cert), Path(root_crl) if root_crl else None
        )
    wanted = ca_root_offline_actions.NewRoot(
        trust_domain, made_in or algorithm, generation, brought
    )
    named = Named.of(key_stores, token_pin_file)
    passphrase_file = Path(key_passphrase_file) if key_passphrase_file else None
    return ca_root_offline_actions.make(
        Path(directory), wanted, passphrase_file, named, as_json=format_ == "json"
    )


@click.command("sign")
@click.argument("csr", required=False)
@_root_option
@click.option(
    "--out", required=True, metavar="DIR", help="Where the files for the CA's machine go."
)
@click.option(
    "--days",
    default=365,
    show_default=True,
    type=click.IntRange(1, 36_500),
    help="How long the issuing CA's certificate holds; never longer than the root.",
)
@click.option(
    "--crl-days",
    type=click.IntRange(1, 36_500),
    help="How long the CRL holds.  [default: until the last issuing CA ends]",
)
@click.option(
    "--revoke",
    multiple=True,
    metavar="WHICH",
    help="An issuing CA that is believed no more: its key id, its serial, or a file with its certificate. Repeatable.",
)
@click.option(
    "--reason",
    default="unspecified",
    show_default=True,
    help="Why it is revoked, as for cert revoke.",
)
@key_store_option
@token_pin_option
@_passphrase_option
@yes_option
@format_option
def sign(
    *,
    csr: str | None,
    root: str,
    out: str,
    days: int,
    crl_days: int | None,
    revoke: tuple[str, ...],
    reason: str,
    key_stores: tuple[str, ...],
    token_pin_file: str | None,
    key_passphrase_file: str | None,
    yes: bool,
    format_: str,
) -> int:
    """Certify the issuing CA of CSR with an offline root, and make the root's next CRL.

    Without CSR only the CRL is made. What is about to be signed is shown first, with the fingerprint
    that ca root csr has shown on the CA's machine; whatever does not fit is refused. The files in
    --out are for ca root install. Interrupted, run it again.

    \b
    Examples:
      mesh-ctl ca root sign issuing-2.csr --root /media/root --out /media/stick
      mesh-ctl ca root sign --root /media/root --out /media/stick --revoke issuing-1.crt --reason keyCompromise
    """
    from twisted_mesh.cli.ctl import ca_root_offline_actions
    from twisted_mesh.cli.ctl.key_stores import Named

    must_be_answered(yes)
    asked = ca_root_offline_actions.Asked(
        Path(csr) if csr else None, Path(out), days, crl_days, revoke, reason
    )
    passphrase_file = Path(key_passphrase_file) if key_passphrase_file else None
    named = Named.of(key_stores, token_pin_file)
    return ca_root_offline_actions.sign(
        Path(root), asked, passphrase_file, named, yes=yes, as_json=format_ == "json"
    )
