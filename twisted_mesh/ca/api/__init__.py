"""The CA's API as the CA serves it."""
