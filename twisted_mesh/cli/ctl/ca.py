"""``mesh-ctl ca``: the command lines about the CA's own certificates and keys."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl import ca_root
from twisted_mesh.cli.ctl.options import (
    REASONS,
    Reach,
    format_option,
    must_be_answered,
    reaching,
    yes_option,
)


@click.group()
def command() -> None:
    """Show the CA's certificates and keys; rotate the root or the issuing CA; revoke that; take a root's key away.

    \b
    Examples:
      mesh-ctl ca show
      mesh-ctl ca keys
      mesh-ctl ca root status
      mesh-ctl ca revoke-issuing KEY_ID --dry-run
      mesh-ctl ca detach-root /media/safe/
    """


command.add_command(ca_root.command)


@command.command()
@reaching
@format_option
def show(*, reach: Reach, format_: str) -> int:
    """Show the root and the issuing CAs with their fingerprints, and how long they last; those that are revoked.

    But for the roots they are read from the state directory, where that is this machine's.

    \b
    Examples:
      mesh-ctl ca show
      mesh-ctl ca show --format json
    """
    from twisted_mesh.cli.ctl import ca_actions
    from twisted_mesh.cli.ctl.session import administer

    issuing = ca_actions.issuing_certificates(reach.state) if reach.is_local else []
    revoked = ca_actions.revoked_authorities(reach.state) if reach.is_local else ()
    return administer(reach, ca_actions.Showing(issuing, format_ == "json", revoked))


@command.command()
@reaching
@format_option
def keys(*, reach: Reach, format_: str) -> int:
    """Show where each key of the CA is, and have it prove that: each signs a number that is drawn just now.

    The signatures are verified here, by the certificates below this CA's roots. What a token says of a
    key is its own word. The exit status is 1 where a key does not sign.

    \b
    Examples:
      mesh-ctl ca keys
      mesh-ctl ca keys --format json
    """
    from twisted_mesh.cli.ctl.ca_keys import ShowingKeys
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, ShowingKeys(format_ == "json"))


@command.command("rotate-issuing")
@yes_option
@reaching
@format_option
def rotate_issuing(*, reach: Reach, yes: bool, format_: str) -> int:
    """Make the next issuing CA now, and have it issue: its key is where mesh-ca --issuing-key says.

    So a CA moves to a token or a signer, to another algorithm, or back: after a restart with another
    --issuing-key. The root's key has to be here. The CA before is retired, and what it issued stays good.

    \b
    Examples:
      mesh-ctl ca rotate-issuing
      mesh-ctl ca rotate-issuing --yes --format json
    """
    from twisted_mesh.cli.ctl.ca_keys import RotatingIssuing
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    return administer(reach, RotatingIssuing(yes, format_ == "json"))


@command.command("detach-root")
@click.argument("destination")
@click.option(
    "--key",
    default="root.key",
    metavar="FILE",
    help="Which key: that of the other root, during a rotation, is called root-N.key.",
)
@yes_option
@reaching
@format_option
def detach_root(*, reach: Reach, destination: str, key: str, yes: bool, format_: str) -> int:
    """Move the root's key to DESTINATION, a directory or a new file outside of the state directory.

    The key is copied, flushed and read back; then the CA is asked to delete its own. It goes on
    issuing, and says in time when it needs the key again.

    \b
    Examples:
      mesh-ctl ca detach-root /media/safe/
      mesh-ctl ca detach-root /media/safe/mesh-root.key --yes
      mesh-ctl ca detach-root /media/safe/ --key root-2.key
    """
    from twisted_mesh.cli.ctl import ca_actions
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    work = ca_actions.Detaching(
        reach.state, Path(destination), ca_actions.root_key(key), yes, format_ == "json"
    )
    return administer(reach, work)


@command.command("revoke-issuing")
@click.argument("key_id")
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    default="cACompromise",
    show_default=True,
    help="Why (RFC 5280).",
)
@click.option(
    "--force",
    is_flag=True,
    help="Revoke also the one that issues, though the root's key is not here for another.",
)
@click.option("--dry-run", is_flag=True, help="Say whom it would cut off, and revoke nothing.")
@yes_option
@reaching
@format_option
def revoke_issuing(
    *, reach: Reach, key_id: str, reason: str, force: bool, dry_run: bool, yes: bool, format_: str
) -> int:
    """Revoke the issuing CA whose key has that id, as ca show has it, or that a file has, for good.

    Its successor is made and issues first, by the root's key. Then nobody believes what it has issued,
    and whoever holds that gets a certificate of the successor by itself: its own ID, once its old
    certificate is found in the record, byte for byte.

    \b
    Examples:
      mesh-ctl ca revoke-issuing 5f0c…e1 --dry-run
      mesh-ctl ca revoke-issuing stolen.crt --reason keyCompromise --yes
    """
    from pki.svid.revocation_set import Reason
    from twisted_mesh.cli.ctl.ca_revoke import RevokingIssuing
    from twisted_mesh.cli.ctl.cert_filters import issuer_meant
    from twisted_mesh.cli.ctl.session import administer

    if not dry_run:
        must_be_answered(yes)
    work = RevokingIssuing(
        issuer_meant(key_id, "KEY_ID"),
        Reason(reason),
        force,
        dry_run=dry_run,
        yes=yes,
        as_json=format_ == "json",
    )
    return administer(reach, work)
