"""Runs a program of ours with the platform of the drill registered: PROGRAM ARGUMENTS."""

import sys

from tests.twisted_mesh.attest.badge import KINDS
from tests.twisted_mesh.attest.badge_prover import PROVERS
from twisted_mesh.attest import platforms
from twisted_mesh.evidence import option

BADGE = platforms.Platform("tests.twisted_mesh.attest.badge:BadgeAttestor", KINDS)
platforms.PLATFORMS = {**platforms.PLATFORMS, "badge": BADGE}
option.PROVERS = {**option.PROVERS, **PROVERS}


def main() -> object:
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "twistd":
        from twisted.scripts import twistd

        return twistd.run()
    if sys.argv[0] == "mesh-client":
        from twisted_mesh.cli.client import main as mesh_client

        return mesh_client()
    from twisted_mesh.cli.ctl.command import main as mesh_ctl

    return mesh_ctl()


if __name__ == "__main__":
    sys.exit(main())
