"""The state directory and the key files in it."""
