"""Workloads that others' libraries make, and what they are built of."""
