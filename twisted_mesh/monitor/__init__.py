"""A monitor of transparency logs: follows them, keeps an index of what is in them, and raises alerts.

It trusts no log: every entry is held against a head that the log has signed, and every head against the one before.
"""
