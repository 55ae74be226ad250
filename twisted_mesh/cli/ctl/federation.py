"""``mesh-ctl federation``: the command lines about other trust domains."""

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
    """Federate with other trust domains (SPIFFE Federation): the CA follows their bundles.

    Whoever a registration entry lets in that federates with a trust domain (entry create --federates-with)
    is given its bundle, and believes that trust domain's IDs, for what its own rules allow by name.

    \b
    Examples:
      mesh-ctl federation add partner.example --url https://partner.example/bundle --profile https_web
      mesh-ctl federation list
    """


@command.command()
@click.argument("domain", metavar="TRUST_DOMAIN")
@click.option("--url", required=True, metavar="URL", help="Where its bundle is: https://HOST/PATH.")
@click.option(
    "--profile",
    required=True,
    metavar="P",
    help="How the server proves itself: https_spiffe by its SVID, https_web by the web's CAs.",
)
@click.option("--spiffe-id", metavar="ID", help="With https_spiffe: the server's SPIFFE ID.")
@click.option(
    "--bundle",
    metavar="FILE",
    help="With https_spiffe: its bundle to begin with, SPIFFE's JSON or PEM.",
)
@click.option(
    "--crl-url", metavar="URL", help="Where its CRLs are: http://HOST/PATH.  [default: none]"
)
@reason_option
@reaching
@format_option
def add(
    *,
    reach: Reach,
    domain: str,
    url: str,
    profile: str,
    spiffe_id: str | None,
    bundle: str | None,
    crl_url: str | None,
    reason: str,
    format_: str,
) -> int:
    """Federate with TRUST_DOMAIN: follow its bundle, and give it to whoever federates with it.

    Get the bundle of https_spiffe by a way that you trust: whoever has that file changed is the other
    trust domain from then on.

    With --crl-url nobody there is believed unless its CRLs can be read. Without, certificates that its
    CA has revoked are good here until they expire.

    \b
    Examples:
      mesh-ctl federation add partner.example --url https://partner.example/bundle --profile https_web
      mesh-ctl federation add partner.example --url https://ca.partner.example:8445/bundle \\
          --profile https_spiffe --spiffe-id spiffe://partner.example/mesh/ca --bundle partner.json \\
          --crl-url http://ca.partner.example:8080/crls
    """
    from twisted_mesh.api.federation_messages import NewFederation
    from twisted_mesh.cli.ctl import federation_actions
    from twisted_mesh.cli.ctl.session import administer

    asked = NewFederation(domain, url, profile, spiffe_id, None, crl_url, reason)
    new = federation_actions.understood(asked, bundle)
    return administer(reach, federation_actions.Adding(new, format_ == "json"))


@command.command("list")
@reaching
@format_option
def list_(*, reach: Reach, format_: str) -> int:
    """List the trust domains that are federated with, and how each stands.

    \b
    Examples:
      mesh-ctl federation list
      mesh-ctl federation list --format json
    """
    from twisted_mesh.cli.ctl import federation_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, federation_actions.Listing(format_ == "json"))


@command.command()
@click.argument("domain", metavar="TRUST_DOMAIN")
@reaching
@format_option
def show(*, reach: Reach, domain: str, format_: str) -> int:
    """Show all that is known of one: its roots, how old its bundle is, what failed last, who federates with it.

    \b
    Examples:
      mesh-ctl federation show partner.example
    """
    from twisted_mesh.cli.ctl import federation_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, federation_actions.Showing(domain, format_ == "json"))


@command.command()
@click.argument("domain", metavar="TRUST_DOMAIN")
@click.option(
    "--accept-older",
    is_flag=True,
    help="Believe what comes though its sequence goes back: the peer was restored from a backup.",
)
@reason_option
@reaching
@format_option
def refresh(*, reach: Reach, domain: str, accept_older: bool, reason: str, format_: str) -> int:
    """Ask for its bundle now, and for its CRLs.

    \b
    Examples:
      mesh-ctl federation refresh partner.example
      mesh-ctl federation refresh partner.example --accept-older --reason 'restored on Monday, says Kim'
    """
    from twisted_mesh.cli.ctl import federation_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(
        reach,
        federation_actions.Refreshing(domain, accept_older, reason, format_ == "json"),
    )


@command.command()
@click.argument("domain", metavar="TRUST_DOMAIN")
@reason_option
@yes_option
@reaching
@format_option
def remove(*, reach: Reach, domain: str, reason: str, yes: bool, format_: str) -> int:
    """Federate with TRUST_DOMAIN no more: its IDs are refused, and open connections of them are cut.

    Entries that federate with it stay as they are, and give nobody anything by that.

    \b
    Examples:
      mesh-ctl federation remove partner.example
      mesh-ctl federation remove partner.example --reason 'contract ended' --yes
    """
    from twisted_mesh.cli.ctl import federation_actions
    from twisted_mesh.cli.ctl.session import administer

    must_be_answered(yes)
    return administer(reach, federation_actions.Removing(domain, reason, yes, format_ == "json"))
