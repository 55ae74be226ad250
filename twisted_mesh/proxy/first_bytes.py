"""Whether a caller speaks TLS, by the first bytes that it says."""

#: The type of the record that a client's hello comes in, and the first byte of its version (RFC 8446 section 5.1).
_HANDSHAKE, _VERSION = 0x16, 0x03
#: So many bytes are enough to tell.
ENOUGH = 2


def speaks_tls(first: bytes) -> bool | None:
    """Whether it does; None while it has not said enough to tell."""
    if not first:
        return None
    if first[0] != _HANDSHAKE:
        return False
    return None if len(first) < ENOUGH else first[1] == _VERSION
