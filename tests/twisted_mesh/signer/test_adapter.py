"""The adapter that docs/SIGNER_ADAPTER.md shows, as it stands there: a KMS whose keys sign for a CA."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.keys import KeyAlgorithm, verify
from tests.running import CHECKOUT, Running, is_listening, mesh, until
from tests.twisted_mesh.grpc.sockets import own_reactor, run
from twisted_mesh.signer.address import SignerAddress
from twisted_mesh.signer.client import SignerClient, SignerRefused
from twisted_mesh.signer.messages import KeyPurpose

#: A page, and where its process finds what stands in for boto3.
PAGE = CHECKOUT / "docs" / "SIGNER_ADAPTER.md"
KMS = CHECKOUT / "tests" / "peers" / "kms"


def adapter() -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return found  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """The socket of one that runs."""
    with TemporaryDirectory() as directory:
        program, path = Path(directory, "kms_signer.py"), Path(directory, "s")
        program.write_text(adapter())
        serving = Running.start(
            *(sys.executable, program, path), cwd=Path(directory), env={"PYTHONPATH": str(KMS)}
        )
        try:
            until(lambda: path.exists() and is_listening(path), lambda: serving.text)
            assert path.stat().st_mode & 0o777 == 0o600
            yield path
        finally:
            serving.stop()


@pytest.fixture
def client(place: Path) -> Iterator[SignerClient]:
    found = SignerClient(own_reactor(), SignerAddress(path=str(place)))
    yield found
    found.hang_up()


@pytest.mark.parametrize(
    "algorithm",
    [
        KeyAlgorithm.EC_P256,
        KeyAlgorithm.EC_P384,
        pytest.param(KeyAlgorithm.RSA_4096, marks=pytest.mark.interop),
    ],
)
def test_a_key_of_the_kms_signs_what_verifies(
    client: SignerClient, algorithm: KeyAlgorithm
) -> None:
    made = run(client.make(KeyPurpose.ISSUING, algorithm, f"mesh.local {algorithm}"))
    assert re.fullmatch(r"[A-Za-z0-9.-]+", made.name)
    assert made in run(client.keys())
    public = load_der_public_key(made.public_key)
    assert KeyAlgorithm.of(public) is algorithm
    signature = run(client.sign(made.name, b"to be signed"))
    verify(public, signature, b"to be signed", algorithm.hash)  # type: ignore[arg-type]
    assert run(client.whereabouts(made.name)).is_extractable is False


def test_what_there_is_not_is_said(client: SignerClient) -> None:
    for asked in (client.sign("nobody", b"data"), client.make(KeyPurpose.ROOT, "rot13", "root")):
        with pytest.raises(SignerRefused, match="there is no"):
            run(asked)
    # It answers others as before.
    assert isinstance(run(client.keys()), tuple)


@pytest.mark.interop("tests/twisted_mesh/signer/test_adapter.py::test_what_there_is_not_is_said")
def test_a_ca_lives_by_it(place: Path, tmp_path: Path) -> None:
    keys = f"signer:unix:{place}?algorithm=ec-p384"
    with mesh(tmp_path) as house:
        ca = house.start_ca("--root-key", keys, "--issuing-key", keys)
        house.start_server()
        assert house.client().returncode == 0
        assert house.ctl("ca", "keys").returncode == 0
        assert ca.stop() == 0
        again = house.start_ca("--root-key", keys, "--issuing-key", keys)
        assert house.ctl("ca", "rotate-issuing", "--yes").returncode == 0
        assert "ERROR" not in ca.text + again.text
