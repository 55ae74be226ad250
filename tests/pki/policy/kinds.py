"""Kinds of selectors that a test declares for itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from pki.policy import selector


@contextmanager
def own_kinds() -> Iterator[None]:
    """What is declared inside is forgotten after it."""
    before = set(selector.KINDS)
    try:
        yield
    finally:
        for name in selector.KINDS.keys() - before:
            del selector._kinds[name]
