"""``mesh-ctl``: ``NOUN.py`` has the command lines about a noun, ``NOUN_*.py`` beside it does their work.

The first imports no more than click, so that ``--help`` is quick; the others are imported when a command runs.
"""
