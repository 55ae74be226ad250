"""A service's own identity: obtained, kept fresh, kept for a restart."""
