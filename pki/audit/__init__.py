"""The audit log: entries, its Merkle tree, and who examines it."""
