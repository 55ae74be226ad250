"""AWS instances, and machines of another PKI, end to end: the programs as they are, a metadata service on loopback."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import define
from cryptography.hazmat.primitives.serialization import Encoding

from tests import foreign_pki
from tests.authorities import key
from tests.foreign_pki import Holder, issued, name
from tests.running import BIN, CHECKOUT, Running
from tests.twisted_mesh.attest.aws_documents import (
    ACCOUNT,
    INSTANCE,
    REGION,
    aws,
    base64_lines,
    document,
    impostor,
)
from tests.twisted_mesh.evidence.metadata_service import DOCUMENT, MetadataService, serving
from tests.twisted_mesh.evidence.test_x509pop_prover import key_pem
from twisted_mesh.cli.status import REFUSED

BUILD = "spiffe://mesh.local/service/build"
DAY = timedelta(days=1)


@define(eq=False)
class Place:
    """A CA that takes both, and endpoints of this machine."""

    path: Path
    start: Callable[..., Running]
    url: str = ""

    def ca(self) -> Running:
        pem = aws().certificate.public_bytes(Encoding.PEM)
        (self.path / f"{REGION}.pem").write_bytes(pem)
        (self.path / "corp.pem").write_text(self.corp.pem)
        (self.path / "attestors.toml").write_text(
            f'[aws]\naccounts = ["{ACCOUNT}"]\n'
            f'certificates = {{ {REGION} = "{self.path / REGION}.pem" }}\n'
            f'[x509pop]\nroots = "{self.path / "corp.pem"}"\n'
        )
        ca = self.start(
            *(str(BIN / "twistd"), "-n", "--pidfile=", "mesh-ca", "--port", "0"),
            *("--root-key", "ec-p256", "--attestors", str(self.path / "attestors.toml")),
        )
        ca.wait_for(r"Ready to issue certificates\.")
        self.url = f"https://localhost:{ca.wait_for(r'listening on https://[^:]+:([0-9]+)')[1]}"
        return ca

    @property
    def corp(self) -> Holder:
        """The root of the other PKI, valid now."""
        own, today = key("corp-root").private_key, datetime.now(UTC)
        subject = name("Corp Root")
        return issued(
            *(subject, own, subject, own, foreign_pki.CA),
            serial=1,
            start=today - DAY,
            end=today + DAY,
        )

    def machine(self, end: timedelta = DAY) -> str:
        """The name of a file with a machine's certificate and key."""
        today = datetime.now(UTC)
        holder = self.corp.machine("node7", start=today - 2 * DAY, end=today + end)
        file = self.path / f"machine{end.days}.pem"
        file.write_text(holder.pem + key_pem(holder))
        file.chmod(0o600)
        return str(file)

    def entry(self, *selectors: str) -> None:
        told = [option for selector in selectors for option in ("--selector", selector)]
        made = self.ctl("entry", "create", *told, "--spiffe-id", BUILD)
        assert made.wait() == 0, made.text

    def ctl(self, *arguments: str) -> Running:
        """mesh-ctl at the CA's own socket."""
        return self.start(str(BIN / "mesh-ctl"), *arguments)

    def join(self, evidence: str, out: str, **environment: str) -> Running:
        """mesh-client, which obtains an identity by that evidence, and keeps it as files."""
        root = str(self.path / "state" / "ca" / "root.crt")
        return self.start(
            *(str(BIN / "mesh-client"), "--export", str(self.path / out)),
            *("--ca-url", self.url, "--ca-file", root, "--attest", evidence),
            *("--spiffe-id", BUILD, "--state-dir", str(self.path / f"{out}-state")),
            *("--timeout", "2s"),
            env=environment,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    started: list[Running] = []

    def start(*command: str, env: dict[str, str] | None = None) -> Running:
        own = {"MESH_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1", **(env or {})}
        started.append(Running.start(*command, cwd=CHECKOUT, env=own))
        return started[-1]

    yield Place(tmp_path, start)
    for running in reversed(started):
        running.stop()
        assert "Traceback" not in running.text


def test_an_instance_joins_by_its_document_and_forgers_do_not(place: Place) -> None:
    ca = place.ca()
    place.entry(f"aws_iid:account:{ACCOUNT}", f"aws_iid:region:{REGION}")
    today = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    good = base64_lines(aws().sign(document(pendingTime=today))).encode()
    with serving(MetadataService({DOCUMENT: good})) as service:
        where = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
        joined = place.join("aws", "out", **where)
        joined.wait()  # there is no server to talk to
        assert "Certificate issued" in joined.text
        assert [asked.method for asked in service.asked] == ["PUT", "GET"]
        assert list((place.path / "out").glob("**/svid.pem"))
        ca.wait_for(re.escape(f"aws_iid:{ACCOUNT}:{REGION}:{INSTANCE}"))
        thief = place.join("aws", "other", **where)
        assert thief.wait() == REFUSED
        assert "already-attested" in thief.text
        claim = f"aws_iid:{ACCOUNT}:{REGION}:{INSTANCE}"
        assert claim in thief.text
        evicted = place.ctl("agent", "evict", claim, "--yes")
        assert evicted.wait() == 0, evicted.text
        again = place.join("aws", "again", **where)
        again.wait()
        assert "Certificate issued" in again.text
        for made, reason in (
            (impostor().sign(document(pendingTime=today)), "not signed by a certificate of AWS"),
            (aws().sign(document(accountId="999999999999")), "account 999999999999"),
        ):
            service.pages[DOCUMENT] = base64_lines(made).encode()
            refused = place.join("aws", "other", **where)
            assert refused.wait() == REFUSED
            assert reason in refused.text and "bad-evidence" in refused.text
    away = place.join("aws", "other", **where)
    assert away.wait() == REFUSED
    assert "is this machine of that platform?" in away.text
    assert not (place.path / "other").exists()


def test_a_machine_of_another_pki_joins_by_its_key(place: Place) -> None:
    ca = place.ca()
    place.entry("x509pop:subject:cn:node7")
    joined = place.join(f"x509pop:{place.machine()}", "out")
    joined.wait()
    assert "Certificate issued" in joined.text
    assert list((place.path / "out").glob("**/svid.pem"))
    ca.wait_for(r"x509pop:sha256:[0-9a-f]{64}")
    again = place.join(f"x509pop:{place.machine()}", "again")
    again.wait()
    assert "Certificate issued" in again.text
    expired = place.join(f"x509pop:{place.machine(end=-DAY)}", "other")
    assert expired.wait() == REFUSED
    assert "evidence-expired" in expired.text and "node7" in expired.text
    assert not (place.path / "other").exists()
