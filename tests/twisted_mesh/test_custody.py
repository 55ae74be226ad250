"""Which kind of store a URI opens."""

from pathlib import Path

import pytest
from twisted.internet import reactor

from pki.errors import Malformed
from twisted_mesh.custody import open_store
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.pins import Pins


def test_an_unknown_scheme_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="there are pkcs11, signer"):
        open_store("vault:transit", StoreGround(reactor, Pins(), tmp_path))
