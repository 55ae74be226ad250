"""A PKCS #11 module that ends its process: behind a signer it is the signer's, and the CA lives."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.interop.administering import issue, statuses
from tests.interop.signing import SignedHouse, signed_house
from tests.interop.test_signer import ATTACKS, SHOP, assert_no_key_is_here, revoke, sign
from tests.running import until
from tests.twisted_mesh.pkcs11.softhsm import Shim, SoftHsm

pytestmark = pytest.mark.interop(ATTACKS)


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    """A token, and the module before it."""
    softhsm = SoftHsm.made(tmp_path / "softhsm", "mesh")
    found = Shim(Shim.built(tmp_path), tmp_path, softhsm.module)
    found.does()
    with softhsm.here(), found.here():
        yield found


@pytest.fixture
def house(shim: Shim) -> Iterator[SignedHouse]:
    """A house whose signer has its keys on that token."""
    pin = shim.directory / "softhsm" / "pin"
    uri = f"pkcs11:token=mesh?module-path={shim.module}&pin-source=file:{pin}"
    with TemporaryDirectory(prefix="mesh-") as home, signed_house(Path(home)) as found:
        found.options = ("--key-store", uri)
        yield found


def test_the_ca_lives_where_a_module_ends_the_signer(house: SignedHouse, shim: Shim) -> None:
    house.start_signer()
    ca = house.start_signed_ca()
    assert_no_key_is_here(house)
    assert "PRIVATE" not in "".join(
        path.read_text() for path in (house.vault / "signer" / "private").glob("*issuing*.key")
    )
    serial = issue(house, SHOP)
    signer, was = house.signer, ca.process.pid
    assert signer is not None
    shim.does("C_Sign crash")
    asked = sign(house)
    assert (asked.status, asked.code) == (503, "key-store-away")
    assert signer.wait() != 0
    # The CA answers what needs no signature, and has what was revoked on record.
    assert house.ask("socket", "/api/v1/ca").status == 200
    assert revoke(house, serial).status in (200, 202, 503)
    assert statuses(house)[serial] == "revoked"
    # Whoever supervises the signer starts it anew; once the module is mended, all is well.
    shim.does()
    house.start_signer()
    until(lambda: sign(house).status == 201)
    assert ca.process.poll() is None
    assert ca.process.pid == was
    assert ca.stop() == 0
