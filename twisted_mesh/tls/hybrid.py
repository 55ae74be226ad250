"""Which groups are hybrid, and what is said where keys were not exchanged by one.

A hybrid group is safe as long as either of its halves is (RFC 9794): X25519 or a NIST curve, and ML-KEM, which a
quantum computer does not break either.
"""

from pki.codes import Code
from pki.errors import Problem, printable

#: By their names in IANA's registry and OpenSSL, the one that most speak first (draft-ietf-tls-ecdhe-mlkem).
HYBRID = ("X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024")
NAMED = ", ".join(HYBRID)
HAVE_HYBRID = (
    f"have it take one of {NAMED}: OpenSSL has them from 3.5 on, Go X25519MLKEM768 from 1.24 on"
)
REQUIRED_BY = "--require-pq"


def is_hybrid(group: str) -> bool:
    """Whether it is one of :data:`HYBRID`; what is not known is not, nor is ML-KEM alone."""
    return group in HYBRID


def classical(group: str) -> Problem | None:
    """Why nothing may pass where keys were exchanged by ``group``, empty if that is not known; None if it is hybrid."""
    if is_hybrid(group):
        return None
    by = printable(group, 60) or "a group that OpenSSL does not tell"
    return Problem(
        Code.CLASSICAL_KEY_EXCHANGE,
        f"the peer exchanges keys by {by}, and a hybrid group is required here",
        HAVE_HYBRID,
        REQUIRED_BY,
    )
