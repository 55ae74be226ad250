"""Certificate revocation lists: read, relied on, made."""
