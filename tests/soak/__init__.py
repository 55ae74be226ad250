"""Tests under load: a seeded, bounded part of each in every run, all of it in ``make soak``."""
