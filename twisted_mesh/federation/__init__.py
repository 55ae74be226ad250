"""SPIFFE Federation as a protocol: bundles of other trust domains fetched and followed, and ours served."""
