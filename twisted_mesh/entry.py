"""Where our programs begin, before anything is imported that somebody else's module may stand in the place of.

A ``twisted`` directory or an ``attr.py`` where Python looks first (PYTHONPATH, or the current directory) breaks
an import with a traceback that does not say so. Imports the standard library only.
"""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder

from twisted_mesh.runtime import garbage
from twisted_mesh.runtime.open_files import hold_the_standard_ones

#: What we are made of, by the names that are imported.
_OURS = (
    *("pki", "twisted", "attr", "attrs", "zope", "OpenSSL", "cryptography", "service_identity"),
    *("msgspec", "click", "rich", "sqlalchemy", "prometheus_client", "platformdirs"),
)
#: What ``mesh-signer`` is told that is no option.
SIGNER_COMMANDS = ("keys", "approve", "adopt", "listed", "log")
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def mesh_agent() -> int:
    """The program ``mesh-agent``; its exit status."""
    return _run("mesh-agent", "twisted_mesh.taps.programs", "mesh_agent", 1)


def mesh_ca() -> int:
    """The program ``mesh-ca``; its exit status."""
    return _run("mesh-ca", "twisted_mesh.taps.programs", "mesh_ca", 1)


def mesh_ctlog() -> int:
    """The program ``mesh-ctlog``; its exit status."""
    return _run("mesh-ctlog", "twisted_mesh.taps.programs", "mesh_ctlog", 1)


def mesh_proxy() -> int:
    """The program ``mesh-proxy``; its exit status."""
    return _run("mesh-proxy", "twisted_mesh.taps.programs", "mesh_proxy", 1)


def mesh_server() -> int:
    """The program ``mesh-server``; its exit status."""
    return _run("mesh-server", "twisted_mesh.taps.programs", "mesh_server", 1)


def mesh_signer() -> int:
    """The program ``mesh-signer``; its exit status. A word for a command is one for whoever looks after the signer."""
    if sys.argv[1:2] and sys.argv[1] in SIGNER_COMMANDS:
        return _run("mesh-signer", "twisted_mesh.cli.signer", "main", 2)
    return _run("mesh-signer", "twisted_mesh.taps.programs", "mesh_signer", 1)


def mesh_witness() -> int:
    """The program ``mesh-witness``; its exit status."""
    return _run("mesh-witness", "twisted_mesh.taps.programs", "mesh_witness", 1)


def mesh_client() -> int:
    """The program ``mesh-client``; its exit status."""
    return _run("mesh-client", "twisted_mesh.cli.client", "main", 2)


def mesh_ctl() -> int:
    """The program ``mesh-ctl``; its exit status."""
    return _run("mesh-ctl", "twisted_mesh.cli.ctl.command", "main", 2)


def pki_inspect() -> int:
    """The program ``pki-inspect``; its exit status."""
    return _run("pki-inspect", "twisted_mesh.cli.inspect", "main", 2)


def _run(program: str, module: str, name: str, unusable: int) -> int:
    hold_the_standard_ones()
    garbage.seldom()
    try:
        status: int = getattr(import_module(module), name)()
    except (ImportError, AttributeError) as error:
        sentence = foreign_modules(error)
        if sentence is None:
            raise
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{program}: {sentence}\n")
        return unusable
    return status


def foreign_modules(error: Exception) -> str | None:
    """Which modules stand in the place of ours; None where none does, and ``error`` has another cause."""
    found = sorted({f"{name} in {place}" for name, place in _foreign()})
    if not found:
        return None
    return (
        f"Python takes {', '.join(found)} in the place of what belongs to this program: take that directory out of "
        f"PYTHONPATH, or start elsewhere ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]})"
    )


def _foreign() -> Iterator[tuple[str, str]]:
    looked_at_first = [os.path.abspath(place or ".") for place in _places()]
    standard = {name for name in sys.modules if name in sys.stdlib_module_names}
    for name in (*_OURS, *standard):
        place = _place(name)
        if place in looked_at_first and place != _HERE:
            yield name, place
        elif name == "pki" and place != _HERE:
            yield name, str(place)


def _places() -> Iterator[str]:
    yield from filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if sys.path and sys.path[0] in ("", os.curdir):
        yield ""


def _place(name: str) -> str | None:
    """The directory in which Python finds a module."""
    module = sys.modules.get(name)
    spec: ModuleSpec | None = getattr(module, "__spec__", None) or PathFinder.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return os.path.dirname(os.path.abspath(next(iter(spec.submodule_search_locations))))
    if spec.has_location and spec.origin:
        return os.path.dirname(os.path.abspath(spec.origin))
    return None
