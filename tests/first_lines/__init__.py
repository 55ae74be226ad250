"""What each side says first of a set-up that is broken: a table, with a module for each kind of set-up.

A module here has ``ROWS``, which ``tests/test_first_lines.py`` tries. Whoever adds a kind adds a module.
"""
