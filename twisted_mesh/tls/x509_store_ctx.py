"""The X509_STORE_CTX, through pyOpenSSL's cffi layer: what its public API does not offer.

Two things: telling OpenSSL *why* we refuse, which becomes the alert that the peer is sent, and the
whole chain at the moment of an objection. All private names of pyOpenSSL are used here and nowhere
else; where one is missing, :func:`install` leaves the public callback in place.
"""

from collections.abc import Callable, Mapping
from typing import Any

from OpenSSL import SSL, crypto

from twisted_mesh.runtime.log import logger

_log = logger("tls")
_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)

_NEEDED = (
    "SSL_CTX_set_verify",
    "SSL_get_ex_data_X509_STORE_CTX_idx",
    "X509_STORE_CTX_get_ex_data",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_get_error_depth",
    "X509_STORE_CTX_get1_chain",
    "X509_STORE_CTX_set_error",
    "sk_X509_num",
    "sk_X509_value",
    "sk_X509_free",
)

available: bool = (
    _lib is not None
    and _ffi is not None
    and all(hasattr(_lib, name) for name in _NEEDED)
    and hasattr(SSL.Connection, "_reverse_mapping")
    and hasattr(crypto.X509, "_from_raw_x509_ptr")
)


def install(
    context: SSL.Context,
    mode: int,
    decide: Callable[
        [SSL.Connection, bool, int, int, Callable[[], Mapping[int, crypto.X509]]], int
    ],
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
        index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
        pointer = _lib.X509_STORE_CTX_get_ex_data(store, index)
        connection = SSL.Connection._reverse_mapping[pointer]
        error = decide(
            connection,
            bool(ok),
            _lib.X509_STORE_CTX_get_error(store),
            _lib.X509_STORE_CTX_get_error_depth(store),
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


def _chain(store: Any) -> list[crypto.X509]:
    """The chain as OpenSSL has built it so far, leaf first; at least the leaf."""
    stack = _lib.X509_STORE_CTX_get1_chain(store)
    if stack == _ffi.NULL:
        return []
    # get1 gives a reference to each certificate: X509 objects take it over, the stack itself is freed.
    try:
        return [
            crypto.X509._from_raw_x509_ptr(_lib.sk_X509_value(stack, i))
            for i in range(_lib.sk_X509_num(stack))
        ]
    finally:
        _lib.sk_X509_free(stack)
