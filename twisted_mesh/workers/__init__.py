"""Several processes for one service: one that has the identity and the addresses, and those that serve."""
