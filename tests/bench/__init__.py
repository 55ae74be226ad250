"""Measurements beside peers, interleaved in one run: ``python -m tests.bench``, or ``make bench``."""
