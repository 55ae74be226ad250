"""``mesh-ctl why``: its command line."""

import click

from twisted_mesh.cli.ctl.options import Reach, format_option, reaching
from twisted_mesh.cli.program import Unusable


@click.command()
@click.option("--pid", type=click.IntRange(1), help="This process.  [default: mesh-ctl itself]")
@click.option(
    "--request",
    "file",
    metavar="FILE",
    help="What was sent to /api/v1/sign (JSON); - for standard input.",
)
@click.option(
    "--selector", "selectors", multiple=True, metavar="S", help="As if that was seen. Repeatable."
)
@click.option(
    "--agent", metavar="NAME", help="As a workload of this agent: only its entries count."
)
@click.option("--spiffe-id", metavar="ID", help="The SPIFFE ID that is asked for.")
@click.option("--dns", "dns_names", multiple=True, metavar="NAME", help="With it. Repeatable.")
@click.option("--ip", "ip_addresses", multiple=True, metavar="A", help="With it. Repeatable.")
@click.option("--ttl", metavar="T", help="For so long.")
@click.option("--all", "all_", is_flag=True, help="All entries, and not only the nearest five.")
@reaching
@format_option
def command(
    *,
    reach: Reach,
    pid: int | None,
    file: str | None,
    selectors: tuple[str, ...],
    agent: str | None,
    spiffe_id: str | None,
    dns_names: tuple[str, ...],
    ip_addresses: tuple[str, ...],
    ttl: str | None,
    all_: bool,
    format_: str,
) -> int:
    """Say why a caller gets a certificate or not: what was seen of it, and which entries come near.

    The caller is a process of this machine, or has the selectors that you name. For one that is not
    let in, the registration entry that would let it in is shown as a command. A join token in a saved
    request is looked up by its id, and not shown.

    Exit status: 0 it would be let in, 1 it would not.

    \b
    Examples:
      mesh-ctl why --spiffe-id spiffe://mesh.local/service/api
      mesh-ctl why --pid 4711 --spiffe-id spiffe://mesh.local/service/api --dns api.example
      mesh-ctl why --selector unix:user:api --spiffe-id spiffe://mesh.local/service/api
      mesh-ctl why --agent node-1 --selector unix:user:api
      mesh-ctl why --request sign.json
    """
    from twisted_mesh.cli.ctl import agent_actions, why_answer, why_caller
    from twisted_mesh.cli.ctl.session import administer

    named = (spiffe_id, ttl) != (None, None) or dns_names or ip_addresses
    if file is not None and named:
        raise Unusable(
            "--request says what is asked for: leave --spiffe-id, --dns, --ip and --ttl out"
        )
    if agent is not None:
        agent_actions.checked(agent)
    if spiffe_id is None and named:
        raise Unusable("--dns, --ip and --ttl go with --spiffe-id")
    asked = None
    if file is not None:
        asked = why_caller.saved_request(file)
    elif spiffe_id is not None:
        asked = why_caller.made_up_request(spiffe_id, dns_names, ip_addresses, ttl)
    seen = why_caller.seen(
        pid,
        selectors,
        has_token=asked is not None and asked.token is not None,
        is_near=reach.ca_url is None or not reach.ca_url.startswith("https:"),
    )
    work = why_answer.Explaining(seen, asked, reach.trust_domain, all_, format_ == "json", agent)
    return administer(reach, work)
