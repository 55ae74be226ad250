"""``mesh-ctl doctor``: its command line."""

import click

from twisted_mesh.cli.ctl.options import Reach, format_option, reaching


@click.command()
@reaching
@format_option
def command(*, reach: Reach, format_: str) -> int:
    """Say what is not well with the CA, and what to do about it.

    The CA looks at itself: it really signs and really writes. What can only be seen from outside is
    looked at here: the socket, the state directory's modes, the two clocks, the disk. Exit status 1
    if any check fails; warnings are only told.

    \b
    Examples:
      mesh-ctl doctor
      mesh-ctl doctor --format json
    """
    from twisted_mesh.cli.ctl import doctor_checks
    from twisted_mesh.cli.ctl.session import administer

    before = doctor_checks.of_files(reach.state) if reach.is_local else []
    return administer(reach, doctor_checks.Diagnosis(before, format_ == "json"))
