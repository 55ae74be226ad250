"""An instance of AWS, for the conformance suite."""

from contextlib import ExitStack
from datetime import datetime, timedelta

from tests.twisted_mesh.attest.aws_documents import NOW, SETTINGS, base64_lines, shown, usual
from tests.twisted_mesh.attest.cases import Case
from twisted_mesh.attest.aws import AwsAttestor


class Moment:
    """A clock that is set forward."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now

    def end(self) -> None:
        """To after all that AWS has certified."""
        self.now += timedelta(days=200 * 366)


def make(stack: ExitStack) -> Case:
    moment = Moment()
    text = "".join(base64_lines(usual()).split())
    return Case(AwsAttestor(SETTINGS, moment), lambda: shown(text), moment.end)
