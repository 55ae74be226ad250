"""The commands of ``bin/``: each module loads what it needs when a command runs, so that ``--help`` is quick."""
