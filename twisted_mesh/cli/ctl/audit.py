"""``mesh-ctl audit``: the command lines about the CA's log."""

from pathlib import Path

import click

from twisted_mesh.cli.ctl.options import Reach, format_option, output_file, reaching
from twisted_mesh.cli.program import Unusable

#: All that there are, spelled here so that --help imports none of the log.
ACTS = (
    "issue",
    "renew",
    "revoke",
    "write-off",
    "issue-jwt",
    "rotate",
    "administer",
    "start",
    "stop",
    "restore",
    "refuse",
)


@click.group()
def command() -> None:
    """Verify, show and export the CA's log of all its acts.

    \b
    Examples:
      mesh-ctl audit verify
      mesh-ctl audit show --act revoke
      mesh-ctl audit export log.jsonl && mesh-ctl audit verify --file log.jsonl
    """


@command.command()
@click.option(
    "--file", metavar="EXPORT", help="What audit export has written, instead of asking a CA."
)
@click.option(
    "--verifier",
    metavar="KEY",
    help="With --file: the key that must have signed it, as name+hash+base64.",
)
@reaching
@format_option
def verify(*, reach: Reach, file: str | None, verifier: str | None, format_: str) -> int:
    """Look for whatever is cut, edited, reordered or rolled back in the whole log, and changed in the record.

    Every entry is hashed, and the tree is held against every signed checkpoint: the log's own, those
    that endpoints on this machine have seen, and the one that this command saw last and remembers.
    Every certificate, entry and token on record is compared with what the log says of it.
    Exit status 1 if anything is wrong.

    \b
    Examples:
      mesh-ctl audit verify
      mesh-ctl audit verify --format json
      mesh-ctl audit verify --file log.jsonl --verifier mesh.local/audit/…+0eae5058+AXHW…
    """
    from twisted_mesh.cli.ctl import audit_actions
    from twisted_mesh.cli.ctl.session import administer

    state = reach.own_state
    if file is not None:
        return audit_actions.verify_file(Path(file), verifier, state, as_json=format_ == "json")
    if verifier is not None:
        raise Unusable("--verifier goes with --file: the key of a CA that is asked is remembered")
    return administer(reach, audit_actions.Verifying(state, format_ == "json"))


@command.command()
@click.argument("position", required=False, type=click.IntRange(0))
@click.option("--start", type=click.IntRange(0), help="From this entry on.  [default: the newest]")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--act", type=click.Choice(ACTS), help="Only those.")
@click.option("--object", "object_", metavar="X", help="Whose object contains this: a serial.")
@reaching
@format_option
def show(
    *,
    reach: Reach,
    position: int | None,
    start: int | None,
    limit: int,
    act: str | None,
    object_: str | None,
    format_: str,
) -> int:
    """Show the newest entries, or with POSITION one in full and the proof that it is in the log.

    \b
    Examples:
      mesh-ctl audit show
      mesh-ctl audit show --act revoke --object 47e8f7f3
      mesh-ctl audit show 17
    """
    from twisted_mesh.cli.ctl import audit_show
    from twisted_mesh.cli.ctl.session import administer

    as_json = format_ == "json"
    if position is not None:
        if (start, act, object_) != (None, None, None):
            raise Unusable("POSITION is one entry: leave --start, --act and --object out")
        return administer(reach, audit_show.Showing(position, reach.own_state, as_json))
    wanted = object_.replace(":", "") if object_ and "/" not in object_ else object_
    return administer(reach, audit_show.Listing(start, limit, act, wanted, as_json))


@command.command()
@click.argument("file")
@reaching
def export(*, reach: Reach, file: str) -> int:
    """Write the whole log with its checkpoints into FILE, whole or not at all.

    The file proves itself: audit verify --file needs no CA.

    \b
    Examples:
      mesh-ctl audit export log.jsonl
    """
    from twisted_mesh.cli.ctl import audit_actions
    from twisted_mesh.cli.ctl.session import administer

    return administer(reach, audit_actions.Exporting(output_file(file)))
