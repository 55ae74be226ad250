"""What a context of the mesh is told before it is sealed: what it demands of a peer, and what it shows."""

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from pki.keys import KeyAlgorithm
from pki.svid.x509svid import X509Svid
from twisted_mesh.stdlib.refusals import KeyNotKnown, NoHybridGroup, knows_post_quantum
from twisted_mesh.tls.hybrid import HYBRID, NAMED


def demand(
    context: ssl.SSLContext, *, serves: bool, check_hostname: bool, require_pq: bool
) -> None:
    """Demand what every context of the mesh does."""
    # Both: a machine's openssl.cnf may say something lower.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = check_hostname
    context.hostname_checks_common_name = False  # it is no name of a host, and not unique
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    if serves:
        context.num_tickets = 0
    if require_pq:
        insist_on_hybrid(context)


def insist_on_hybrid(context: ssl.SSLContext) -> None:
    """Offer and take no key exchange but by hybrid groups. Raises :class:`NoHybridGroup`."""
    set_groups = getattr(ssl.SSLContext, "set_groups", None)
    try:
        if set_groups is None:
            raise NoHybridGroup(
                "require_pq: this Python's ssl cannot be told which groups to take (that of Python 3.15 can), and "
                f"{ssl.OPENSSL_VERSION} does not insist on a hybrid group by itself: use Python 3.15, or go without"
            )
        set_groups(context, ":".join(HYBRID))
    except ssl.SSLError as error:
        if isinstance(error, NoHybridGroup):
            raise
        raise NoHybridGroup(
            f"require_pq: {ssl.OPENSSL_VERSION} has not all of {NAMED}: use a Python with OpenSSL 3.5 or later"
        ) from None


def present(context: ssl.SSLContext, svid: X509Svid) -> None:
    """Present ``svid``. The standard library takes a certificate and its key from files alone.

    Raises :class:`KeyNotKnown`.
    """
    password = secrets.token_hex(32)
    with _as_file(svid, password) as path:
        try:
            ssl.SSLContext.load_cert_chain(context, path, password=password)
        except ssl.SSLError:
            kinds = _post_quantum(svid)
            if kinds:
                raise KeyNotKnown(kinds) from None
            raise


def known_to_ssl(algorithm: KeyAlgorithm) -> KeyAlgorithm:
    """Raises :class:`KeyNotKnown` for one that this Python's ssl cannot use."""
    if algorithm.kind.is_post_quantum and not knows_post_quantum():
        raise KeyNotKnown([algorithm.label])
    return algorithm


def _post_quantum(svid: X509Svid) -> list[str]:
    """The kinds of keys in a chain, and of those that have signed it, of which OpenSSL may not know."""
    signed_by = {cert.signature_algorithm_oid for cert in svid.chain}
    keys = {KeyAlgorithm.of(cert.public_key()) for cert in svid.chain}
    return [
        row.label
        for row in KeyAlgorithm
        if row.kind.is_post_quantum and (row in keys or signed_by & row.kind.verifiable.keys())
    ]


@contextmanager
def _as_file(svid: X509Svid, password: str) -> Iterator[Path]:
    """Chain and key as a file: one in memory where there are such; else one whose key is encrypted, gone at once."""
    key = svid.key.private_key
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("mesh", os.MFD_CLOEXEC)
        try:
            path = Path(f"/proc/self/fd/{descriptor}")
            if path.exists():
                plain = key.private_bytes(pem, form, serialization.NoEncryption())
                os.write(descriptor, svid.chain_pem() + plain)
                yield path
                return
        finally:
            os.close(descriptor)
    sealed = key.private_bytes(pem, form, serialization.BestAvailableEncryption(password.encode()))
    with tempfile.NamedTemporaryFile(prefix="mesh-") as file:
        file.write(svid.chain_pem() + sealed)
        file.flush()
        yield Path(file.name)
