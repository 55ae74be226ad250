"""Runs a program of ours with the attestor of the drill registered: PROGRAM ARGUMENTS."""

import sys

from tests.twisted_mesh.attest.shared_secret import SharedSecretAttestor
from twisted_mesh.attest import registry

registry.ATTESTORS = (*registry.ATTESTORS, SharedSecretAttestor)


def main() -> object:
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "twistd":
        from twisted.scripts import twistd

        return twistd.run()
    from twisted_mesh.cli.ctl.command import main as mesh_ctl

    return mesh_ctl()


if __name__ == "__main__":
    sys.exit(main())
