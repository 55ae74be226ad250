"""A PKCS #11 token as a key store."""

from twisted_mesh.keystores.errors import KeyStoreRefused
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.interface import KeyStore


def open_store(uri: str, ground: StoreGround) -> KeyStore:
    """The token that ``uri`` names. Nothing is opened yet. Raises :class:`pki.errors.PkiError`."""
    raise KeyStoreRefused(f"{uri}: this version has no PKCS #11")
