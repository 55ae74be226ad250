"""Attestors: from evidence that a caller cannot choose to what it proves of the caller."""
