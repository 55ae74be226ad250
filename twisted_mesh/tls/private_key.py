"""The private key of a context, of whatever algorithm OpenSSL knows: pyOpenSSL takes fewer from cryptography."""

import warnings

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from pki.keys import MemoryKey


def use_key(context: SSL.Context, key: MemoryKey) -> None:
    """Have ``context`` prove by ``key`` who we are. Raises ``SSL.Error`` for one that is not the certificate's."""
    private_key = key.private_key
    if not key.algorithm.kind.is_post_quantum:
        context.use_privatekey(private_key)  # type: ignore[arg-type]
        return
    # Those it knows in its own class alone, which it would rather not be given.
    der = private_key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_ASN1, der))
