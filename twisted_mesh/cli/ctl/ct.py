"""``mesh-ctl ct``: the command lines about logs of certificates."""

from collections.abc import Callable
from pathlib import Path

import click

from twisted_mesh.cli.ctl.ct_logs import logs
from twisted_mesh.cli.ctl.options import Reach, format_option, reaching, state_dir_option
from twisted_mesh.cli.program import Unusable

_logs_option = click.option(
    "--ct-logs",
    required=True,
    metavar="FILE",
    help="The list of logs: their keys and URLs, as mesh-ctlog writes its entry.",
)
_logs_key_option = click.option(
    "--ct-logs-key",
    metavar="FILE|PIN",
    help="Whoever has signed the list, in FILE.sig: a public key or certificate, or sha256/… of one.",
)
_copy_option = click.option(
    "--copy",
    metavar="DIR",
    help="Read the only log of the list from a copy of its files, and not over the network.",
)
_timeout_option = click.option(
    "--timeout", default="10s", show_default=True, help="How long an answer may take."
)


@click.group()
def command() -> None:
    """Watch logs of certificates, search them, and prove what is in them.

    \b
    Examples:
      mesh-ctl ct watch --ct-logs logs.json --name 'spiffe://mesh.local/admin/**' --compare
      mesh-ctl ct prove web.pem --ct-logs logs.json
      mesh-ctl ct search --name 'spiffe://mesh.local/service/**' --after 2026-11-29T00:00:00Z
      mesh-ctl ct verify evidence.json --ct-logs logs.json
      mesh-ctl ct logs sign logs.json --key logs-key.pem
    """


command.add_command(logs)

_WATCHING = (
    click.option(
        "--name",
        "names",
        multiple=True,
        metavar="PATTERN",
        help="Alert on certificates for such a SPIFFE ID or host (*.example.com). Repeatable.",
    ),
    click.option(
        "--except",
        "except_for",
        multiple=True,
        metavar="PATTERN",
        help="But not on those for such a one. Repeatable.",
    ),
    click.option(
        "--expect-issuer",
        "issuers",
        multiple=True,
        metavar="SHA256|FILE",
        help="Alert on certificates of every other issuing key. Repeatable.",
    ),
    click.option(
        "--expect-key",
        "keys",
        multiple=True,
        metavar="PATTERN=SHA256|FILE",
        help="Alert on certificates for such names and any other key. Repeatable.",
    ),
    click.option(
        "--compare", is_flag=True, help="Hold the logs and the CA's record against each other."
    ),
    click.option(
        "--quorum",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="With --compare: how many logs must have what is on record.",
    ),
    click.option(
        "--since",
        metavar="TIME",
        help="With --compare: what was issued before need not be in a log.  [default: the first entry]",
    ),
    click.option(
        "--record-keeps",
        default="30d",
        show_default=True,
        help="With --compare: the CA's --keep-expired.",
    ),
    click.option("--interval", default="30s", show_default=True, help="Between two looks."),
    click.option(
        "--away", default="10m", show_default=True, help="Alert on a log that is silent so long."
    ),
    click.option(
        "--stale", default="1h", show_default=True, help="Alert on a head that is as old."
    ),
    click.option(
        "--keep",
        default="30d",
        show_default=True,
        help="How long a certificate stays in the index after its end.",
    ),
    click.option(
        "--command",
        "command_",
        metavar="COMMAND",
        help="Run it for each alert, told in its environment (MESH_ALERT_…). No shell.",
    ),
    click.option(
        "--webhook",
        "webhooks",
        multiple=True,
        metavar="URL",
        help="POST alerts there, as JSON, until they are taken. Repeatable.",
    ),
    click.option(
        "--webhook-file",
        "webhook_files",
        multiple=True,
        metavar="FILE",
        help="The same with the URL, and what Authorization says, in a file. Repeatable.",
    ),
    click.option(
        "--status",
        metavar="ADDRESS",
        help="127.0.0.1:PORT that answers /metrics, /readyz and /livez.",
    ),
    click.option(
        "--metrics-file", metavar="FILE", help="Write the same figures there after each look."
    ),
    click.option(
        "--once",
        is_flag=True,
        help="Look once, tell, and end: 1 if there are alerts, 3 if a log is away.",
    ),
)


def _watching(command: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(_WATCHING):
        command = option(command)
    return command


@command.command()
@_logs_option
@_logs_key_option
@_copy_option
@click.option(
    "--index",
    metavar="FILE",
    help="Where the index is kept.  [default: ct-watch/index.db in the state]",
)
@_watching
@reaching
@format_option
def watch(*, reach: Reach, ct_logs: str, format_: str, **options: object) -> int:
    """Follow logs, verify all that is in them, keep an index, and tell of what is wrong.

    Every head is held against the one before, and every entry against its head. The place is kept: after
    a restart it goes on where it was. Alerts are lines of the log, and go to --command and --webhook.

    \b
    Examples:
      mesh-ctl ct watch --ct-logs logs.json --name 'spiffe://mesh.local/admin/**'
      mesh-ctl ct watch --ct-logs logs.json --compare --webhook-file hook --status 127.0.0.1:9090
      mesh-ctl ct watch --ct-logs logs.json --compare --once --metrics-file /var/lib/metrics/ct.prom
    """
    from twisted_mesh.cli.ctl.ct_watch import WatchOptions, watch

    return watch(reach, Path(ct_logs), WatchOptions.of(options), as_json=format_ == "json")


@command.command()
@click.argument("certificate")
@_logs_option
@_logs_key_option
@_copy_option
@click.option(
    "--issuer", metavar="FILE", help="The certificate of its CA, if it is not in the same file."
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="KEY",
    help="A witness's key (name+hash+key), who must have cosigned each head. Repeatable.",
)
@click.option(
    "--cosigned",
    type=click.IntRange(1),
    help="How many of these witnesses.  [default: all of them]",
)
@click.option("--evidence", metavar="DIR", help="Where to write what a log has broken its word by.")
@_timeout_option
@format_option
def prove(*, certificate: str, ct_logs: str, format_: str, **options: object) -> int:
    """Prove that CERTIFICATE is in each log that has given a receipt (SCT) for it.

    Each receipt is verified, and its entry read at the place that it names, in a tree that the log has
    signed. Exit status 0 if all of that is so, 1 if anything is not.

    \b
    Examples:
      mesh-ctl ct prove web.pem --ct-logs logs.json
      mesh-ctl ct prove web.pem --issuer issuing.pem --ct-logs logs.json --format json
      mesh-ctl ct prove web.pem --ct-logs logs.json --witness witness.example/w1+2a3b4c5d+BEox…
    """
    from twisted_mesh.cli.ctl.ct_prove import ProveOptions, prove

    asked = ProveOptions.of(options)
    return prove(Path(certificate), Path(ct_logs), asked, as_json=format_ == "json")


@command.command()
@click.option(
    "--index",
    metavar="FILE",
    help="What ct watch keeps.  [default: ct-watch/index.db in the state]",
)
@click.option("--name", metavar="PATTERN", help="Of such a SPIFFE ID or host name.")
@click.option("--serial", metavar="S", help="With this serial number, in hex.")
@click.option("--issuer", metavar="SHA256|FILE", help="Issued by this key.")
@click.option("--key", metavar="SHA256|FILE", help="For this key.")
@click.option("--after", metavar="TIME", help="Logged then or later.")
@click.option("--before", metavar="TIME", help="Logged before.")
@click.option("--log", metavar="ORIGIN", help="In this log: its URL without https://.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--all", "all_", is_flag=True, help="All there are, whatever --limit says.")
@click.option("--ct-logs", metavar="FILE", help="Read these logs now, whole, and no index.")
@_logs_key_option
@_copy_option
@_timeout_option
@state_dir_option
@format_option
def search(*, format_: str, ct_logs: str | None, **options: object) -> int:
    """Search what is in the logs, newest first: in the index of ct watch, or in logs themselves.

    \b
    Examples:
      mesh-ctl ct search --name 'spiffe://mesh.local/service/**'
      mesh-ctl ct search --serial 47e8f7f3e498be8d7f7958543f34d4cd --format json
      mesh-ctl ct search --key stolen.pem --after 2026-11-28T00:00:00Z
      mesh-ctl ct search --name '*.example.com' --ct-logs logs.json
    """
    from twisted_mesh.cli.ctl.ct_search import SearchOptions, search

    asked = SearchOptions.of(options)
    if ct_logs is None and (asked.copy or asked.ct_logs_key):
        raise Unusable("--copy and --ct-logs-key go with --ct-logs: an index needs neither")
    return search(asked, Path(ct_logs) if ct_logs else None, as_json=format_ == "json")


@command.command()
@click.argument("evidence")
@_logs_option
@_logs_key_option
@format_option
def verify(*, evidence: str, ct_logs: str, ct_logs_key: str | None, format_: str) -> int:
    """Judge EVIDENCE against a log: what ct watch, ct prove, an endpoint or a witness has written.

    Nobody is asked: it is what the log itself has signed. Exit status 0 if it proves that the log has
    broken its word, 1 if it proves nothing.

    \b
    Examples:
      mesh-ctl ct verify evidence.json --ct-logs logs.json
    """
    from twisted_mesh.cli.ctl.ct_evidence import verify

    return verify(Path(evidence), Path(ct_logs), ct_logs_key, as_json=format_ == "json")


@command.command()
@reaching
@click.option("--ct-logs", metavar="FILE", help="The list of logs by which they are named.")
@_logs_key_option
@format_option
def status(*, reach: Reach, ct_logs: str | None, ct_logs_key: str | None, format_: str) -> int:
    """Show which receipts of logs endpoints demand (--require-sct), as they tell the CA.

    A line for each demand: of how many logs, of which, and how many endpoints have it. The CA refuses to start with
    a --ct-quorum that is too small for one of them.

    \b
    Examples:
      mesh-ctl ct status
      mesh-ctl ct status --ct-logs logs.json --format json
    """
    from twisted_mesh.cli.ctl.ct_status import Status
    from twisted_mesh.cli.ctl.session import administer

    if ct_logs_key and ct_logs is None:
        raise Unusable("--ct-logs-key is who must have signed the list of --ct-logs: name it")
    path = Path(ct_logs) if ct_logs else None
    return administer(reach, Status(format_ == "json", path, ct_logs_key))
