"""``mesh-ctl backup``: the command lines about backups."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl.key_store_options import key_store_option, token_pin_option
from twisted_mesh.cli.ctl.options import format_option, output_file, state_dir_option, state_path


@click.group()
def command() -> None:
    """Save all that a CA needs, and bring it back.

    A backup has certificates, keys as they are on the disk, and the record of what was issued and
    revoked. Whoever can read it can issue in the CA's name, unless the keys are encrypted.

    \b
    Examples:
      mesh-ctl backup create /mnt/safe/ca-2026-11-23.tar
      mesh-ctl backup show /mnt/safe/ca-2026-11-23.tar
    """


@command.command()
@click.argument("file")
@click.option(
    "--key-passphrase-file",
    metavar="PATH",
    help="What opens encrypted keys, to sign the backup while the CA is down.",
)
@click.option("--overwrite", is_flag=True, help="Also if FILE is there; it is replaced whole.")
@state_dir_option
@format_option
def create(
    *,
    file: str,
    key_passphrase_file: str | None,
    overwrite: bool,
    state_dir: str | None,
    format_: str,
) -> int:
    """Save the CA of the state directory in FILE, whole or not at all. It may go on meanwhile.

    The backup is signed with the issuing CA's key: by the running CA where keys are encrypted, or
    with the passphrase. Where neither can be had it is not signed, and says so.

    \b
    Examples:
      mesh-ctl backup create /mnt/safe/ca.tar
      mesh-ctl backup create ca.tar --state-dir /var/lib/mesh --overwrite
    """
    from twisted_mesh.cli.ctl import backup_actions

    return backup_actions.create(
        state_path(state_dir),
        output_file(file, overwrite=overwrite),
        Path(key_passphrase_file) if key_passphrase_file else None,
        as_json=format_ == "json",
    )


@command.command()
@click.argument("file")
@format_option
def show(*, file: str, format_: str) -> int:
    """Show what is in FILE, and check all of it.

    \b
    Examples:
      mesh-ctl backup show ca.tar
    """
    from twisted_mesh.cli.ctl import backup_actions

    return backup_actions.show(Path(file), as_json=format_ == "json")


@command.command()
@click.argument("file")
@click.option(
    "--accept-loss", is_flag=True, help="Also if things are known that happened after the backup."
)
@click.option(
    "--fingerprint",
    metavar="sha256:HEX",
    help="Of the root of the CA that you want back.  [default: the root that is here]",
)
@click.option(
    "--accept-unsigned", is_flag=True, help="Also if nothing proves who has written the backup."
)
@click.option(
    "--accept-unvouched",
    is_flag=True,
    help="Also if the record has what its audit log does not vouch for.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be lost, and restore nothing.")
@key_store_option
@token_pin_option
@state_dir_option
@format_option
def restore(
    *,
    file: str,
    accept_loss: bool,
    fingerprint: str | None,
    accept_unsigned: bool,
    accept_unvouched: bool,
    dry_run: bool,
    key_stores: tuple[str, ...],
    token_pin_file: str | None,
    state_dir: str | None,
    format_: str,
) -> int:
    """Put the CA that FILE holds into the state directory. The CA must be stopped.

    First the signature is checked, by the root that is here or the one whose fingerprint you name,
    and the record is held against its audit log. Then it says what would be lost: by the record that
    is there, and by what endpoints and audit verify have seen of the log. Where something is, it
    refuses, unless you accept that. Whatever is revoked now stays revoked. What is replaced is moved
    aside. Interrupted, run it again.

    Keys that are on a token or behind a signer are not in FILE: with --key-store it is looked first
    whether they are there.

    \b
    Examples:
      mesh-ctl backup restore ca.tar --dry-run
      mesh-ctl backup restore ca.tar --accept-loss
      mesh-ctl backup restore ca.tar --fingerprint sha256:9f86d081…
    """
    from twisted_mesh.cli.ctl import backup_actions
    from twisted_mesh.cli.ctl.key_stores import Named

    return backup_actions.restore(
        Path(file),
        state_path(state_dir),
        backup_actions.Accepted(
            loss=accept_loss, unsigned=accept_unsigned, unvouched=accept_unvouched
        ),
        fingerprint=fingerprint,
        named=Named.of(key_stores, token_pin_file),
        dry_run=dry_run,
        as_json=format_ == "json",
    )
