"""The commands of ``bin/``: each module loads what it needs when a command runs, so that ``--help`` is quick.

``NOUN.py`` is the command line of a program, and ``NOUN_*.py`` beside it does its work.
"""
