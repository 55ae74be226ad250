"""A root that is offline: on a machine of its own, where no CA runs and no reactor, files go in and out by hand."""
