"""Where what was issued is kept: one door, one schema, memory or SQLite."""
