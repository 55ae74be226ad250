"""Opens the key stores that URIs name; what a kind of store needs is loaded where one is named."""

from collections.abc import Callable

from pki.errors import Malformed, discreet
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.interface import KeyStore


def _pkcs11(uri: str, ground: StoreGround) -> KeyStore:
    try:
        from twisted_mesh.pkcs11.store import open_store
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pkcs11":
            raise
        raise Malformed(
            "a pkcs11: key needs the package python-pkcs11, which is not installed: "
            "pip install 'twisted-mesh[pkcs11]'"
        ) from None
    return open_store(uri, ground)


def _signer(uri: str, ground: StoreGround) -> KeyStore:
    from twisted_mesh.signer.store import open_store

    return open_store(uri, ground)


#: Who opens a store, by the scheme of its URI.
SCHEMES: dict[str, Callable[[str, StoreGround], KeyStore]] = {
    "pkcs11": _pkcs11,
    "signer": _signer,
}


def open_store(uri: str, ground: StoreGround) -> KeyStore:
    """The store that a URI names; it is not started. Raises :class:`pki.errors.PkiError` for a URI that is wrong."""
    scheme = uri.partition(":")[0]
    if scheme not in SCHEMES:
        raise Malformed(
            f"{discreet(scheme, 50)}: is no kind of key store: there are {', '.join(SCHEMES)}"
        )
    return SCHEMES[scheme](uri, ground)
