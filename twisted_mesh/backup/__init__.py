"""Backups of a CA: an archive of all that it needs, and the way back."""
