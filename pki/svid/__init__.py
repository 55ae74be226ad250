"""X.509-SVIDs: names, trust bundles, and the verdict on a chain."""
