"""A mesh whose CA has its keys with a signer: both run as a person starts them, with one user for all."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from cryptography import x509

from pki.issuing.csr import build_csr
from pki.keys import KeyReference
from pki.spiffe import SpiffeId
from tests.authorities import key
from tests.interop.house import House, Reply, as_json
from tests.running import Running, free_port

ROOT_KEY, ISSUING_KEY = "root.key", "issuing.key"


@define(eq=False)
class SignedHouse(House):
    """A house with one more state directory, the signer's."""

    is_remote: bool = False
    """Whether the signer is asked over TLS."""
    signer: Running | None = None
    signer_port: int = 0
    pin: str = ""
    """Of the key that the signer shows."""
    options: Sequence[str] = field(factory=tuple)
    """The signer's, besides what all have."""

    @property
    def vault(self) -> Path:
        """The signer's state directory."""
        return self.home / "vault"

    @property
    def signer_socket(self) -> Path:
        return self.vault / "signer" / "signer.sock"

    @property
    def address(self) -> str:
        """As the CA's options name the signer."""
        if self.is_remote:
            pin = f"?pin={self.pin}" if self.pin else ""
            return f"signer:https://127.0.0.1:{self.signer_port}{pin}"
        return f"signer:unix:{self.signer_socket}"

    def key_options(self, algorithm: str = "ec-p256") -> tuple[str, ...]:
        sign = "&" if "?" in self.address else "?"
        uri = f"{self.address}{sign}algorithm={algorithm}"
        return ("--root-key", uri, "--issuing-key", uri)

    def start_signer(self, *options: str) -> Running:
        """It listens once this returns."""
        words = ["mesh-signer", "--state-dir", str(self.vault), "--trust-domain", "mesh.local"]
        if self.is_remote:
            self.signer_port = self.signer_port or free_port()
            words += ["--listen", f"127.0.0.1:{self.signer_port}"]
        running = self.signer = self.twistd(*words, *self.options, *options)
        running.wait_for(r"Ready to sign")
        return running

    def start_signed_ca(self, *options: str, wait: bool = True) -> Running:
        return self.start_ca(*self.key_options(), *options, wait=wait)

    def name_of(self, key: str) -> str:
        """What the signer calls the key of a file of the CA's."""
        found = KeyReference.parse((self.state / "ca" / "private" / key).read_bytes())
        return found.uri.removeprefix("signer:")

    def ask_der(self, path: str) -> bytes:
        """What the CA answers on its socket, as it comes."""
        place = self.home / "answer.der"
        done = self.run(
            *("curl", "-sS", "--fail", "--max-time", "30", "--unix-socket", self.socket),
            *("--output", place, f"http://localhost{path}"),
        )
        assert done.returncode == 0, done.stderr
        return place.read_bytes()

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.state / "ca" / name).read_bytes())


@contextmanager
def signed_house(home: Path, *, is_remote: bool = False) -> Iterator[SignedHouse]:
    home.mkdir(parents=True, exist_ok=True)
    house = SignedHouse(home, is_remote=is_remote)
    try:
        yield house
    finally:
        house.stop()
    for said in (*(running.text for running in house.processes), *house.said):
        assert "Traceback" not in said


def sign(house: SignedHouse, name: str = "shop") -> Reply:
    """What the CA answers to a request for a certificate."""
    spiffe_id = f"spiffe://mesh.local/service/{name}"
    csr = build_csr(key(name), SpiffeId.parse(spiffe_id)).decode()
    sent = house.home / f"body-{name}.json"
    sent.write_text(json.dumps({"csr": csr, "requested_id": spiffe_id}))
    return house.ask(
        *("socket", "/api/v1/sign", *as_json(), "--data-binary", f"@{sent}"), method="POST"
    )
