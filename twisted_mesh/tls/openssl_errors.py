"""What OpenSSL says of a broken handshake, the peer's alerts among it, as problems with a remedy."""

from collections.abc import Iterator

from OpenSSL import SSL

from pki.codes import Code
from pki.errors import Problem, printable

_FRESH = "request a fresh certificate, and compare the two machines' clocks"

#: The alerts of RFC 8446 section 6.2 as OpenSSL spells them, and what they tell whoever gets one.
ALERTS: dict[str, tuple[Code, str, str]] = {
    "certificate required": (
        Code.NO_CERTIFICATE,
        "it demands a client certificate, and we sent none",
        "present an SVID",
    ),
    "certificate expired": (Code.EXPIRED, "it says that our certificate has expired", _FRESH),
    "certificate revoked": (
        Code.REVOKED,
        "it says that our certificate is revoked",
        "ask an administrator why",
    ),
    "unknown ca": (
        Code.UNKNOWN_AUTHORITY,
        "it does not know the authority that signed our certificate",
        "use a certificate of its mesh, and send the intermediates along",
    ),
    "unsupported certificate": (
        Code.WRONG_USAGE,
        "our certificate does not allow this use",
        "present an SVID with clientAuth and serverAuth",
    ),
    "bad certificate": (
        Code.BAD_CERTIFICATE,
        "it refuses our certificate: it is not an SVID, not yet valid, or not allowed there",
        "its log has the reason; look at ours with pki-inspect show",
    ),
    "certificate unknown": (
        Code.BAD_CERTIFICATE,
        "it cannot make sure of our certificate now: what it knows of revocations may be out of date",
        "try again later; its log has the reason",
    ),
    "bad certificate status response": (
        Code.STAPLE_REFUSED,
        "it does not take the OCSP answer that we staple to our certificate, or misses one",
        "its log has the reason; look whether our certificate is revoked, and whether our CA answers",
    ),
    "protocol version": (
        Code.PROTOCOL_VERSION,
        "it does not speak our version of TLS",
        "the mesh speaks TLS 1.3 only",
    ),
    "handshake failure": (
        Code.HANDSHAKE_FAILURE,
        "we have nothing to speak in common",
        "the mesh speaks TLS 1.3 only; if our library is older than the other side's key, its log says so",
    ),
    "internal error": (
        Code.REFUSED_BY_PEER,
        "it refused us without saying why",
        "the reason is in its log",
    ),
}

#: OpenSSL's own complaints about what it received.
ERRORS: dict[str, tuple[Code, str, str]] = {
    "peer did not return a certificate": (
        Code.NO_CERTIFICATE,
        "the peer presented no certificate",
        "present an SVID of this mesh: curl takes --cert and --key",
    ),
    "unsupported protocol": (
        Code.PROTOCOL_VERSION,
        "the peer speaks no TLS 1.3",
        "the mesh speaks TLS 1.3 only: update the peer",
    ),
    "http request": (Code.NOT_TLS, "the peer speaks plain HTTP", "use https:// on this port"),
    "https proxy request": (
        Code.NOT_TLS,
        "the peer speaks plain HTTP to a proxy",
        "use https:// on this port",
    ),
    "wrong version number": (
        Code.NOT_TLS,
        "what the peer sent is not TLS",
        "speak TLS 1.3 on this port",
    ),
    "record layer failure": (
        Code.NOT_TLS,
        "what the peer sent is not TLS, or was changed on the way",
        "speak TLS 1.3",
    ),
    "packet length too long": (
        Code.NOT_TLS,
        "what the peer sent is not TLS",
        "speak TLS 1.3 on this port",
    ),
    "unexpected message": (
        Code.MALFORMED,
        "the peer sent a message out of order",
        "speak TLS 1.3 on this port",
    ),
    "no shared cipher": (
        Code.HANDSHAKE_FAILURE,
        "no common cipher",
        "the mesh speaks TLS 1.3 only",
    ),
    "no suitable signature algorithm": (
        Code.HANDSHAKE_FAILURE,
        "the peer's TLS library knows no signature that a key like ours makes; of post-quantum ones OpenSSL does from "
        "3.5 on, and the libraries of Go, Java and Python may not",
        "take a key that it knows (--key ec-p256), or update the peer",
    ),
    "unexpected eof while reading": (
        Code.INTERRUPTED,
        "the peer went away in the middle",
        "look at its log",
    ),
}


def reasons_in(error: SSL.Error) -> Iterator[str]:
    """The words of OpenSSL's error queue. A SysCallError has a number in its place."""
    queue = error.args[0] if error.args else ()
    for entry in queue if isinstance(queue, list | tuple) else ():
        match entry:
            case (_, _, str(reason)):
                yield reason


def alert_in(reason: str) -> str | None:
    """The alert that OpenSSL tells of, if it does. Of those of RFC 6066 it does not say that they are some."""
    if "alert" in reason:
        return reason.rpartition("alert ")[2]
    name = reason.removeprefix("tlsv1 ")
    return name if name in ALERTS else None


def from_openssl(error: SSL.Error) -> Problem:
    """What OpenSSL's error means."""
    reasons = list(reasons_in(error))
    for reason in reasons:
        alert = alert_in(reason)
        if alert in ALERTS:
            code, detail, remedy = ALERTS[alert]
            return Problem(
                code, f"the other side refused us: {detail}", remedy, f"TLS alert: {alert}"
            )
        if alert is not None:
            return Problem(
                Code.REFUSED_BY_PEER,
                f"the other side sent the TLS alert {alert}",
                "look at its log",
            )
        if reason in ERRORS:
            return Problem(*ERRORS[reason])
    detail = ", ".join(reasons) or "an unexplained TLS error"
    return Problem(Code.TLS_ERROR, printable(detail, 200), "look at the other side's log")
