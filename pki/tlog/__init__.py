"""What all transparency logs have in common: Merkle trees in tiles, and signed notes."""
