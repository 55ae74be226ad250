"""A signer behind a socket as a key store."""

from twisted_mesh.keystores.errors import KeyStoreRefused
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.interface import KeyStore


def open_store(uri: str, ground: StoreGround) -> KeyStore:
    """The signer that ``uri`` names. Nothing is opened yet. Raises :class:`pki.errors.PkiError`."""
    raise KeyStoreRefused(f"{uri}: this version has no signers")
