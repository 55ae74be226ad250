"""A kill between two changes of the disk, as it looks from inside."""

import os
from typing import Any

import pytest


class Killed(BaseException):
    """No handler of ours may hold it up."""


def kill_before_write(number: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the ``number``-th rename or removal from now on not happen. What happened before it is listed."""
    done: list[str] = []
    replace, unlink = os.replace, os.unlink

    def before(name: object) -> None:
        if len(done) == number:
            raise Killed
        done.append(os.path.basename(str(name)))

    def killed_replace(source: Any, target: Any, **options: Any) -> None:
        before(target)
        replace(source, target, **options)

    def killed_unlink(path: Any, **options: Any) -> None:
        if os.path.exists(path) and not os.path.basename(path).startswith("."):
            before(path)
        unlink(path, **options)

    monkeypatch.setattr(os, "replace", killed_replace)
    monkeypatch.setattr(os, "unlink", killed_unlink)
    return done
