"""A machine of another PKI, for the conformance suite."""

from contextlib import ExitStack

from tests.authorities import DAY
from tests.twisted_mesh.attest.cases import Case
from tests.twisted_mesh.attest.foreign_callers import Rig


def make(stack: ExitStack) -> Case:
    rig = Rig()

    def spoil() -> None:
        rig.time += 60 * DAY

    return Case(rig.attestor, rig.evidence, spoil)
