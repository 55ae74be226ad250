"""step-ca as the upstream of our issuing CA: its own library, which makes certificates by its templates."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from pki.errors import Refused
from pki.issuing.authority import Authority
from pki.issuing.ca_request import CaRequest
from pki.issuing.rotation import prove
from pki.issuing.upstream import IssuingChain, Wanted
from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import certificates_pem, load_certificates
from tests.authorities import DAY, MESH, ca_request
from tests.peers.building import step_peer
from tests.tools import require_tool
from twisted_mesh.runtime.clock import wall_clock

pytestmark = pytest.mark.recipes
#: As docs/COMMANDS.md says it: the CSR's subject, a CA, no CA below; and with its one URI, or with no name.
NAMELESS = """{
  "subject": {{ toJson .Insecure.CR.Subject }},
  "keyUsage": ["certSign", "crlSign"],
  "basicConstraints": {"isCA": true, "maxPathLen": 0}
}"""
NAMED = NAMELESS.replace(
    '"keyUsage"', '"sans": [{"type": "uri", "value": "spiffe://mesh.local"}], "keyUsage"'
)
ITS_OWN = NAMELESS.replace("{{ toJson .Insecure.CR.Subject }}", '{"commonName": "Issuing"}')
LONGER = NAMELESS.replace('"maxPathLen": 0', '"maxPathLen": 1')


def signed(home: Path, template: str) -> tuple[MemoryKey, CaRequest, bytes]:
    openssl, key = str(require_tool("openssl")), MemoryKey.generate(KeyAlgorithm.EC_P256)
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3000")
    extended = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    files = ("-keyout", home / "root.key", "-out", home / "root.crt", "-subj", "/CN=Root of step")
    subprocess.run(
        [openssl, "req", "-x509", *new, *extended, *files], check=True, capture_output=True
    )
    made = ca_request(key, MESH, 1)
    (home / "i.csr").write_bytes(made)
    (home / "template").write_text(template)
    words = [step_peer(), *(home / name for name in ("i.csr", "root.crt", "root.key", "template"))]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return key, CaRequest.parse(made, MESH), done.stdout


def chain(home: Path, template: str) -> tuple[MemoryKey, IssuingChain]:
    key, request, made = signed(home, template)
    roots = load_certificates((home / "root.crt").read_bytes())
    wanted = Wanted(MESH, request.subject, request.spki, DAY, wall_clock())
    (found,) = IssuingChain.among(load_certificates(made), roots, wanted)
    return key, found


@pytest.mark.parametrize("template", [NAMELESS, NAMED])
def test_what_its_template_makes_of_our_csr_is_good(template: str, tmp_path: Path) -> None:
    key, found = chain(tmp_path, template)
    candidate = Authority(found.certificate, key, found.certificates)
    asyncio.run(prove(candidate, TrustBundle(MESH, (found.root,)), wall_clock()))
    (tmp_path / "made.crt").write_bytes(certificates_pem(found.certificates))
    verify = ("verify", "-x509_strict", "-CAfile", tmp_path / "root.crt", tmp_path / "made.crt")
    assert subprocess.run([str(require_tool("openssl")), *verify], check=False).returncode == 0


@pytest.mark.parametrize(("template", "code"), [(ITS_OWN, "subject"), (LONGER, "maxPathLen 0")])
def test_another_template_is_refused_in_its_own_words(
    template: str, code: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=f"step-ca: .*{code}"):
        chain(tmp_path, template)
