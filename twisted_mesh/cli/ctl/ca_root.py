"""``mesh-ctl ca root``: the command lines about the rotation of the root."""

from collections.abc import Callable

import click

from twisted_mesh.cli.ctl import ca_root_certification, ca_root_offline
from twisted_mesh.cli.ctl.options import (
    REASONS,
    Reach,
    format_option,
    must_be_answered,
    reaching,
    reason_option,
    yes_option,
)

_dry_run = click.option(
    "--dry-run", is_flag=True, help="Say what stands against it, and change nothing."
)
_force = click.option(
    "--force", is_flag=True, help="Do it although something stands against it; that is recorded."
)


@click.group("root")
def command() -> None:
    """Rotate the root: prepare, activate, retire; each step can be taken back until the last. Or distrust it.

    \b
    Examples:
      mesh-ctl ca root status
      mesh-ctl ca root prepare
      mesh-ctl ca root activate --dry-run
    """


@command.command()
@reaching
@format_option
def status(*, reach: Reach, format_: str) -> int:
    """Show the roots with their fingerprints and pins, how far a rotation is, for whom it waits, and what comes next.

    \b
    Examples:
      mesh-ctl ca root status
      mesh-ctl ca root status --format json
    """
    from twisted_mesh.cli.ctl import ca_root_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, ca_root_actions.Showing(format_ == "json"))


def _step(function: Callable[..., int]) -> click.Command:
    """What all steps have in common."""
    for option in (format_option, reaching, yes_option, reason_option, _force, _dry_run):
        function = option(function)
    return command.command(function.__name__)(function)


@_step
@click.option(
    "--root-cert", metavar="FILE", help="Of a root that was made elsewhere, in place of a new one."
)
def prepare(
    *,
    reach: Reach,
    dry_run: bool,
    force: bool,
    reason: str,
    yes: bool,
    format_: str,
    root_cert: str | None,
) -> int:
    """Make the next root, or bring one, and publish it in every bundle. Nothing rests on it yet.

    \b
    Examples:
      mesh-ctl ca root prepare
      mesh-ctl ca root prepare --reason 'ends in a year' --yes
      mesh-ctl ca root prepare --root-cert root-2.crt
    """
    root = ""
    if root_cert is not None:
        from twisted_mesh.cli.ctl import ca_root_actions

        root = ca_root_actions.root_in(root_cert)
    return _do(
        "prepare", reach, format_, dry_run=dry_run, force=force, reason=reason, yes=yes, root=root
    )


@_step
def activate(
    *, reach: Reach, dry_run: bool, force: bool, reason: str, yes: bool, format_: str
) -> int:
    """Have an issuing CA issue that both roots certify; chains still lead to the old one.

    It waits until everybody who tells believes the new root, and for as long as whoever polls the bundle may need.

    \b
    Examples:
      mesh-ctl ca root activate --dry-run
      mesh-ctl ca root activate --yes
    """
    return _do("activate", reach, format_, dry_run=dry_run, force=force, reason=reason, yes=yes)


@_step
def retire(
    *, reach: Reach, dry_run: bool, force: bool, reason: str, yes: bool, format_: str
) -> int:
    """Have chains lead to the new root, then believe the old one no more and delete its key.

    It waits until nothing valid rests on the old root alone; --dry-run names what does. There is no way back.

    \b
    Examples:
      mesh-ctl ca root retire --dry-run
      mesh-ctl ca root retire --yes
    """
    return _do("retire", reach, format_, dry_run=dry_run, force=force, reason=reason, yes=yes)


@_step
def revert(
    *, reach: Reach, dry_run: bool, force: bool, reason: str, yes: bool, format_: str
) -> int:
    """Take the last step back, until the old root is retired.

    \b
    Examples:
      mesh-ctl ca root revert
      mesh-ctl ca root revert --reason 'a machine was forgotten' --yes
    """
    return _do("revert", reach, format_, dry_run=dry_run, force=force, reason=reason, yes=yes)


@command.command()
@click.argument("fingerprint")
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    default="cACompromise",
    show_default=True,
    help="Why (RFC 5280).",
)
@click.option("--dry-run", is_flag=True, help="Say whom it would cut off, and change nothing.")
@yes_option
@reaching
@format_option
def distrust(
    *, reach: Reach, fingerprint: str, reason: str, dry_run: bool, yes: bool, format_: str
) -> int:
    """Have nobody believe the root with that fingerprint any more: its key is stolen, say.

    Another root is made and put in its place at once, if there is none; nobody is waited for. Every
    connected endpoint cuts what rests on the old one, and workloads get other certificates by
    themselves. It ends with a proof that no certificate is left that brings the key back to life;
    exit status 1 where one is.

    \b
    Examples:
      mesh-ctl ca root distrust sha256:5f0c…e1 --dry-run
      mesh-ctl ca root distrust sha256:5f0c…e1 --reason keyCompromise --yes
    """
    from pki.svid.revocation_set import Reason
    from twisted_mesh.cli.ctl.ca_revoke import Distrusting
    from twisted_mesh.cli.ctl.session import administer

    if not dry_run:
        must_be_answered(yes)
    work = Distrusting(
        fingerprint, Reason(reason), dry_run=dry_run, yes=yes, as_json=format_ == "json"
    )
    return administer(reach, work)


def _do(
    step: str,
    reach: Reach,
    format_: str,
    *,
    dry_run: bool,
    force: bool,
    reason: str,
    yes: bool,
    root: str = "",
) -> int:
    from twisted_mesh.api.root_messages import RootStepRequest
    from twisted_mesh.cli.ctl import ca_root_actions
    from twisted_mesh.cli.ctl.session import administer

    if not dry_run:
        must_be_answered(yes)
    how = RootStepRequest(dry_run, force, reason, root)
    return administer(reach, ca_root_actions.Stepping(step, how, yes, format_ == "json"))


for _elsewhere in (
    ca_root_certification.csr,
    ca_root_offline.sign,
    ca_root_certification.install,
    ca_root_offline.offline,
):
    command.add_command(_elsewhere)
