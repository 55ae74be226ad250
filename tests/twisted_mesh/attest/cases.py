"""What the conformance suite is given of an attestor. A platform's is made by ``NAME_case.py`` beside this file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from attrs import frozen

from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.platforms import PLATFORMS


@frozen
class Case:
    """One attestor with evidence for it."""

    attestor: Any
    gather: Callable[[], Evidence]
    """What a request brings along now."""
    spoil: Callable[[], Any]
    """Has the good evidence be of no worth any more."""

    @property
    def good(self) -> Evidence:
        return self.gather()


Making = Callable[[ExitStack], Case]


def of_platforms() -> Iterator[tuple[str, Making]]:
    """A case of each platform: whoever adds one says here, too, how it is tried."""
    for name in (*PLATFORMS, "badge"):
        yield name, import_module(f"tests.twisted_mesh.attest.{name}_case").make
