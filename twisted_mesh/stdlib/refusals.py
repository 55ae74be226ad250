"""What a program on the standard library's ssl is told: an ``ssl.SSLError`` each, with our problems in it."""

import ssl
from collections.abc import Iterable

from attrs import evolve

from pki.codes import Code
from pki.errors import Problem

#: X509_V_ERR_APPLICATION_VERIFICATION: it was not OpenSSL that refused.
_OUR_OWN = 50
#: OpenSSL's refusals (x509_vfy.h), in the words of ours. It says no before we are asked.
_CODES = {
    2: Code.INCOMPLETE_CHAIN,
    9: Code.NOT_YET_VALID,
    10: Code.EXPIRED,
    18: Code.UNKNOWN_AUTHORITY,
    19: Code.UNKNOWN_AUTHORITY,
    20: Code.UNKNOWN_AUTHORITY,
    21: Code.INCOMPLETE_CHAIN,
    23: Code.REVOKED,
    24: Code.NOT_A_CA,
    25: Code.PATH_TOO_LONG,
    26: Code.WRONG_USAGE,
    62: Code.NAME_MISMATCH,
    64: Code.NAME_MISMATCH,
    79: Code.NOT_A_CA,
}
_CURES = {
    Code.NAME_MISMATCH: "call it by a name that it was given (dns, ip), or judge it by its ID alone "
    "(client_context(check_hostname=False))",
    Code.UNKNOWN_AUTHORITY: "request an SVID from this mesh's CA, or refresh the trust bundle",
    Code.EXPIRED: "request a fresh one; if this one is fresh, compare the two machines' clocks",
    Code.NOT_YET_VALID: "compare the two machines' clocks",
}
_NO_CERTIFICATE = Problem(
    Code.NO_CERTIFICATE,
    "the peer presented no certificate",
    "present an SVID of this mesh: curl takes --cert and --key",
    "TLS 1.3, RFC 8446 section 4.4.2",
    "peer",
)


class MeshSSLError(ssl.SSLError):
    """The root of what the contexts of the mesh raise."""

    def __init__(self, text: str) -> None:
        super().__init__(ssl.SSL_ERROR_SSL, text)
        self.library, self.reason = "MESH", type(self).__name__


class NoIdentity(MeshSSLError):
    """There is nothing to show: the identity is closed, or its certificate has ended and there is no other."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class ContextSealed(MeshSSLError):
    """Somebody would change what a context of the mesh demands."""


class NoHybridGroup(MeshSSLError):
    """A post-quantum key exchange is demanded, and this Python cannot be told to insist on it."""


class KeyNotKnown(MeshSSLError):
    """Our key, or one that certified it, is of a kind that this Python's OpenSSL has never heard of."""

    def __init__(self, kinds: Iterable[str]) -> None:
        super().__init__(
            f"this Python's ssl is {ssl.OPENSSL_VERSION}, which knows no keys of kind {', '.join(kinds)}: use a Python "
            'with OpenSSL 3.5 or later; or join with key="ec-p256", at a CA whose own keys are RSA or EC'
        )


class PeerRefused(ssl.SSLCertVerificationError):
    """The peer is not let in, or not any more; :attr:`problems` has every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(map(_for_programs, problems))
        text = "; ".join(map(str, self.problems))
        super().__init__(ssl.SSL_ERROR_SSL, f"peer refused: {text}")
        self.library, self.reason = "MESH", "PEER_REFUSED"
        self.verify_code, self.verify_message = _OUR_OWN, text

    @property
    def codes(self) -> tuple[str, ...]:
        """The stable code of each reason."""
        return tuple(str(problem.code) for problem in self.problems)


def _for_programs(problem: Problem) -> Problem:
    """The cure in terms of this interface, where it is one of options of a command."""
    if problem.code != Code.NOT_AUTHORIZED or not problem.subject:
        return problem
    cure = (
        f'to let it in, name it: server_context(allow=["{problem.subject}"]), '
        f'client_context(server_id="{problem.subject}")'
    )
    return evolve(problem, remedy=cure, rule="allow, server_id")


def openssls_objection(error: ssl.SSLError) -> Problem | None:
    """What OpenSSL has against the peer's certificate; None where it fails for something else."""
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return _NO_CERTIFICATE
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    code = _CODES.get(error.verify_code, Code.BAD_CERTIFICATE)
    said = f"OpenSSL refuses the certificate: {error.verify_message}"
    return Problem(code, said, _CURES.get(code, "look at it with pki-inspect verify"))


#: What OpenSSL before 3.5 says, and is told, where the other side has post-quantum keys.
_NOTHING_IN_COMMON = {"SSLV3_ALERT_HANDSHAKE_FAILURE", "DECODE_ERROR"}


def explain(error: ssl.SSLError) -> None:
    """Add a note, where the other side's key may be of a kind that this Python does not know."""
    if error.reason in _NOTHING_IN_COMMON and not knows_post_quantum():
        error.add_note(
            f"The peer's key, or that of its CA, may be of a post-quantum kind, which {ssl.OPENSSL_VERSION} does not "
            "know: use a Python with OpenSSL 3.5 or later, or have the peer present an EC key below an EC root."
        )


def knows_post_quantum() -> bool:
    """Whether this Python's OpenSSL knows such signatures (its release notes of 3.5)."""
    return ssl.OPENSSL_VERSION_INFO >= (3, 5)
