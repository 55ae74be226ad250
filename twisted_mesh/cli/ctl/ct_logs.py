"""``mesh-ctl ct logs``: the command lines about the list of logs."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl.options import format_option
from twisted_mesh.cli.program import Unusable


@click.group()
def logs() -> None:
    """Put lists of logs together, show and sign one, and retire a log in it.

    \b
    Examples:
      mesh-ctl ct logs add logs.json log-1/log-list.json log-2/log-list.json
      mesh-ctl ct logs show logs.json
      mesh-ctl ct logs retire logs.json log.example/2026 --key logs-key.pem
    """


_key_options = (
    click.option("--key", metavar="FILE", help="The private key that signs the list, in PEM."),
    click.option("--root", metavar="DIR", help="An offline root, whose key signs the list."),
    click.option("--key-passphrase-file", metavar="PATH", help="What that key is encrypted with."),
)


@logs.command()
@click.argument("file")
@click.option(
    "--ct-logs-key",
    metavar="FILE|PIN",
    help="Demand that FILE.sig is by this key, or sha256/… of it.",
)
@format_option
def show(*, file: str, ct_logs_key: str | None, format_: str) -> int:
    """Show the logs of a list: which count, where they are, and since when one does not.

    \b
    Examples:
      mesh-ctl ct logs show logs.json --ct-logs-key logs-key.pub
    """
    from twisted_mesh.cli.ctl.ct_logs_actions import show

    return show(Path(file), ct_logs_key, as_json=format_ == "json")


@logs.command()
@click.argument("file")
@click.argument("entries", metavar="ENTRY...", nargs=-1, required=True)
@_key_options[0]
@_key_options[1]
@_key_options[2]
def add(
    *,
    file: str,
    entries: tuple[str, ...],
    key: str | None,
    root: str | None,
    key_passphrase_file: str | None,
) -> int:
    """Put the logs of each ENTRY, the log-list.json that a log has written, into FILE, which is made if need be.

    A log that is in FILE already gets what ENTRY says of it now; never another key. A list that was signed is signed
    anew, so it takes --key or --root.

    \b
    Examples:
      mesh-ctl ct logs add logs.json log-1/log-list.json log-2/log-list.json
      mesh-ctl ct logs add logs.json 2027/ctlog/log-list.json --root /media/root
    """
    from twisted_mesh.cli.ctl.ct_logs_actions import Signer, add

    signer = Signer.of(key, root, key_passphrase_file)
    return add(Path(file), [Path(entry) for entry in entries], signer)


@logs.command()
@click.argument("file")
@_key_options[0]
@_key_options[1]
@_key_options[2]
def sign(*, file: str, key: str | None, root: str | None, key_passphrase_file: str | None) -> int:
    """Sign a list of logs: its signature goes into FILE.sig, and what endpoints need to verify it into FILE.pub.

    The list is written anew as it is signed, with the time of now: endpoints take none that is older.

    \b
    Examples:
      mesh-ctl ct logs sign logs.json --key logs-key.pem
      mesh-ctl ct logs sign logs.json --root /media/root
    """
    from twisted_mesh.cli.ctl.ct_logs_actions import Signer, sign

    signer = Signer.of(key, root, key_passphrase_file)
    if signer is None:
        raise Unusable("say who signs: --key FILE, or --root DIR")
    return sign(Path(file), signer)


@logs.command()
@click.argument("file")
@click.argument("log")
@click.option("--at", metavar="TIME", help="From then on.  [default: now]")
@click.option(
    "--state",
    type=click.Choice(["readonly", "retired", "rejected"]),
    default="retired",
    show_default=True,
    help="Rejected: none of its receipts counts, whenever it was made.",
)
@_key_options[0]
@_key_options[1]
@_key_options[2]
def retire(
    *,
    file: str,
    log: str,
    at: str | None,
    state: str,
    key: str | None,
    root: str | None,
    key_passphrase_file: str | None,
) -> int:
    """Retire LOG, an origin: receipts from before that time count on, those from after it do not.

    A list that was signed is signed anew, so it takes --key or --root.

    \b
    Examples:
      mesh-ctl ct logs retire logs.json log.example/2026
      mesh-ctl ct logs retire logs.json log.example/2026 --state rejected --root /media/root
    """
    from twisted_mesh.cli.ctl.ct_logs_actions import Signer, retire

    signer = Signer.of(key, root, key_passphrase_file)
    return retire(Path(file), log, at, state, signer)
