"""Keys on a token, or in anything else that has a PKCS #11 module."""
