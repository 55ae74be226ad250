"""The CA's API as its clients see it."""
