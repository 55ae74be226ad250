"""Certificate transparency logs, asked: submitting to them, reading them, looking whether they keep their word."""
