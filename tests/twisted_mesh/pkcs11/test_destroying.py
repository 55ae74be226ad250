"""A key's file that somebody has changed: it names the token, and no key on it."""

from typing import Any

import pytest

pytest.importorskip("pkcs11", reason="needs the extra pkcs11")

from pki.keys.pkcs11_uri import Pkcs11Uri
from twisted_mesh.keystores.errors import KeyStoreRefused
from twisted_mesh.pkcs11 import objects


@pytest.mark.parametrize("uri", ["pkcs11:token=mesh", "pkcs11:token=mesh;object=;id="])
def test_a_uri_that_names_no_key_deletes_none(uri: str) -> None:
    """To look for a key by nothing finds them all."""
    nobodys: Any = None  # the token is not even asked
    with pytest.raises(KeyStoreRefused, match="nothing was deleted"):
        objects.destroy(nobodys, Pkcs11Uri.parse(uri))
