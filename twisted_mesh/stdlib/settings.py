"""What a context of the mesh is told before it is sealed: what it demands of a peer, and what it shows."""

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from pki.svid.x509svid import X509Svid
from twisted_mesh.stdlib.refusals import NoHybridGroup

#: The one hybrid group that every OpenSSL with any of them has (RFC 9794, draft-ietf-tls-ecdhe-mlkem).
HYBRID_GROUP = "X25519MLKEM768"


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
    """Offer and take no other key exchange. Raises :class:`NoHybridGroup`."""
    set_groups = getattr(ssl.SSLContext, "set_groups", None)
    try:
        if set_groups is None:
            raise NoHybridGroup(
                "require_pq: this Python's ssl cannot be told which groups to take (that of Python 3.15 can), and "
                f"{ssl.OPENSSL_VERSION} does not insist on {HYBRID_GROUP} by itself: use Python 3.15, or go without"
            )
        set_groups(context, HYBRID_GROUP)
    except ssl.SSLError as error:
        if isinstance(error, NoHybridGroup):
            raise
        raise NoHybridGroup(
            f"require_pq: {ssl.OPENSSL_VERSION} has no {HYBRID_GROUP}: use a Python with OpenSSL 3.5 or later"
        ) from None


def present(context: ssl.SSLContext, svid: X509Svid) -> None:
    """Present ``svid``. The standard library takes a certificate and its key from files alone."""
    password = secrets.token_hex(32)
    with _as_file(svid, password) as path:
        ssl.SSLContext.load_cert_chain(context, path, password=password)


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
