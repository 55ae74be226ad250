"""The X509_STORE_CTX, through pyOpenSSL's cffi layer: what its public API does not offer.

Telling OpenSSL *why* we refuse, which becomes the alert that the peer is sent; the whole chain at the
moment of an objection; and both at a fraction of the public API's cost. All private names of pyOpenSSL that
this takes are used here and nowhere else; where one is missing, :func:`install` leaves the public callback in place.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from OpenSSL import SSL

from twisted_mesh.runtime.log import logger

_log = logger("tls")
_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)

_NEEDED = (
    "BIO_free",
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_s_mem",
    "SSL_CTX_set_verify",
    "SSL_get_ex_data_X509_STORE_CTX_idx",
    "SSL_get_peer_cert_chain",
    "X509_free",
    "X509_STORE_CTX_get_ex_data",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_get_error_depth",
    "X509_STORE_CTX_get1_chain",
    "X509_STORE_CTX_set_error",
    "i2d_X509_bio",
    "sk_X509_num",
    "sk_X509_value",
    "sk_X509_free",
)

available: bool = (
    _lib is not None
    and _ffi is not None
    and all(hasattr(_lib, name) for name in _NEEDED)
    and hasattr(SSL.Connection, "_reverse_mapping")
)


def install(
    context: SSL.Context,
    mode: int,
    decide: Callable[[SSL.Connection, bool, int, int, Callable[[], Mapping[int, bytes]]], int],
) -> None:
    """Replace the context's verify callback by one that answers with an X509_V_ERR code."""
    raw = getattr(context, "_context", None)
    if not available or raw is None:
        _log.warn(
            "pyOpenSSL's cffi layer has changed: refused peers get a generic alert",
            event="alerts-generic",
        )
        return

    def callback(ok: int, store: Any) -> int:
        depth = _lib.X509_STORE_CTX_get_error_depth(store)
        if ok and depth:
            # Said of each CA that OpenSSL has nothing against. What we have to say comes with the leaf, which is
            # the last; an objection before that has been answered, and its error overwritten, in a call of its own.
            return 1
        index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
        pointer = _lib.X509_STORE_CTX_get_ex_data(store, index)
        connection = SSL.Connection._reverse_mapping[pointer]
        error = decide(
            connection,
            bool(ok),
            _lib.X509_STORE_CTX_get_error(store),
            depth,
            lambda: dict(enumerate(_chain(store))),
        )
        # Also 0, which is X509_V_OK: an objection that was waived is not the handshake's result.
        _lib.X509_STORE_CTX_set_error(store, error)
        return 0 if error else 1

    def broke(*details: object) -> None:
        _log.error("the verify callback broke; the peer is refused", event="verify-broke")

    # A callback that raises answers 0, which refuses; kept alive by the context that uses it.
    compiled = _ffi.callback("int (*)(int, X509_STORE_CTX *)", callback, error=0, onerror=broke)
    context._mesh_verify = compiled  # type: ignore[attr-defined]
    _lib.SSL_CTX_set_verify(raw, mode, compiled)


def error_text(errno: int) -> str:
    """OpenSSL's words for an X509_V_ERR code."""
    if not available or not hasattr(_lib, "X509_verify_cert_error_string"):
        return f"error {errno}"
    words: bytes = _ffi.string(_lib.X509_verify_cert_error_string(errno))
    return words.decode("ascii", "replace")


def sent(connection: SSL.Connection) -> int | None:
    """How many certificates the peer has sent, without its leaf where we are the server; None if that is not known."""
    ssl = getattr(connection, "_ssl", None)
    if not available or ssl is None:
        return None
    stack = _lib.SSL_get_peer_cert_chain(ssl)
    return 0 if stack == _ffi.NULL else int(_lib.sk_X509_num(stack))


def _chain(store: Any) -> list[bytes]:
    """The chain in DER as OpenSSL has built it so far, leaf first; at least the leaf."""
    stack = _lib.X509_STORE_CTX_get1_chain(store)
    if stack == _ffi.NULL:
        return []
    # get1 gives a reference to each certificate, and the stack itself.
    certificates = [_lib.sk_X509_value(stack, at) for at in range(_lib.sk_X509_num(stack))]
    _lib.sk_X509_free(stack)
    memory = _lib.BIO_new(_lib.BIO_s_mem())
    try:
        data = _ffi.new("char **")
        ends = [0]
        for certificate in certificates:
            if _lib.i2d_X509_bio(memory, certificate) != 1:
                raise MemoryError("a certificate that OpenSSL has read cannot be written")
            ends.append(_lib.BIO_get_mem_data(memory, data))
        written = bytes(_ffi.buffer(data[0], ends[-1]))
        return [written[start:end] for start, end in pairwise(ends)]
    finally:
        for certificate in certificates:
            _lib.X509_free(certificate)
        _lib.BIO_free(memory)
