"""The audit log: entries, checkpoints, and who examines it."""
