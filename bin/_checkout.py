"""For ``bin/NAME`` typed in a checkout: run it with the checkout's ``.venv``.

Read by whatever ``python3`` is first on the PATH, however old: keep the syntax plain.
"""

import os
import sys


def run_again(name, missing):
    """Become ``.venv/bin/python bin/NAME ...``; where that is no help, exit 2 with a hint."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    venv = os.path.join(root, ".venv")
    python = os.path.join(venv, "bin", "python")
    if os.access(python, os.X_OK) and os.path.realpath(sys.prefix) != os.path.realpath(venv):
        os.execv(python, [python, *sys.argv])
    print(
        f"{name}: {missing}; run 'make demo' once in {root}, then bin/{name} again", file=sys.stderr
    )
    sys.exit(2)
