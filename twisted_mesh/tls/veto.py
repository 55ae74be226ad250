"""OpenSSL's word on a chain outside of any handshake: whether it would refuse it by the letter of RFC 5280."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from OpenSSL import crypto

from pki.codes import Code
from pki.errors import Problem
from pki.svid.x509svid import subject_of


def openssl_objection(
    presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> Problem | None:
    """Why OpenSSL would refuse the chain, leaf first, with ``-x509_strict``; None if it would not.

    It follows one path where :func:`pki.svid.chain.judge` looks at several, and believes only roots
    that have signed themselves. An endpoint has it in its handshake.
    """
    leaf, *others = presented
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    store.set_time(now.astimezone(UTC))
    try:
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root))
        crypto.X509StoreContext(
            store,
            crypto.X509.from_cryptography(leaf),
            [crypto.X509.from_cryptography(cert) for cert in others],
        ).verify_certificate()
    except crypto.X509StoreContextError as error:
        return _refused(str(error), error.certificate.to_cryptography())
    except crypto.Error:
        return _refused("a certificate cannot be decoded", leaf)
    return None


def _refused(reason: str, cert: x509.Certificate) -> Problem:
    return Problem(
        Code.BAD_CERTIFICATE,
        f"OpenSSL, which every endpoint asks too, refuses it: {reason}",
        "have the chain issued by a CA of the mesh",
        "RFC 5280 section 6.1",
        subject_of(cert),
    )
