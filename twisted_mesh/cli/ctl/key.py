"""``mesh-ctl key``: the command lines about keys that nothing is certified for."""

import click

from twisted_mesh.cli.ctl.options import (
    Reach,
    format_option,
    must_be_answered,
    reaching,
    reason_option,
    yes_option,
)


@click.group()
def command() -> None:
    """Block keys: nothing is certified for them any more, whoever asks by whichever entry.

    A certificate that is revoked as compromised (cert revoke --reason keyCompromise) blocks its key for good.

    \b
    Examples:
      mesh-ctl key list
      mesh-ctl key block stolen.crt --reason 'found in a public repository'
    """


@command.command()
@click.argument("key", metavar="KEY")
@reason_option
@reaching
@format_option
def block(*, reach: Reach, key: str, reason: str, format_: str) -> int:
    """Block KEY: a file with a certificate, a CSR or a public key, or the SHA-256 of a key.

    Of a file, keys with the same private half are blocked too: another exponent, the other point. What was
    certified for KEY before stays good: mesh-ctl cert revoke --key KEY --reason keyCompromise ends that.

    \b
    Examples:
      mesh-ctl key block stolen.crt --reason 'found in a public repository'
      mesh-ctl key block 5f0c8c0f3c55f1f3a0c8b1c9a3b6a8c4f76d0d3cf2a1a5c6b7d8e9f0a1b2c3d4
    """
    from twisted_mesh.cli.ctl import key_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(
        reach, key_actions.Blocking(key_actions.understood(key, reason), format_ == "json")
    )


@command.command()
@click.argument("key", metavar="KEY")
@reason_option
@yes_option
@reaching
@format_option
def unblock(*, reach: Reach, key: str, reason: str, yes: bool, format_: str) -> int:
    """Let KEY go that an administrator has blocked. One that was compromised stays blocked.

    \b
    Examples:
      mesh-ctl key unblock stolen.crt --reason 'another one was meant' --yes
    """
    from twisted_mesh.cli.ctl import key_actions
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    named = key_actions.digest_of(key)
    return administer(reach, key_actions.Unblocking(named, reason, yes, format_ == "json"))


@command.command("list")
@reaching
@format_option
def list_(*, reach: Reach, format_: str) -> int:
    """List the keys that are blocked, why, and how many others the lists of --blocked-keys have.

    \b
    Examples:
      mesh-ctl key list
      mesh-ctl key list --format json
    """
    from twisted_mesh.cli.ctl import key_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, key_actions.Listing(format_ == "json"))
