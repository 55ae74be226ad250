"""What a command says of its own certificate, before anybody else has to refuse it."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from pki.issuing.authority import Authority
from tests.interop.forging import HOUR, forged, present
from tests.interop.house import House

CASES = {
    "expired": (
        {"start": timedelta(hours=-2), "end": timedelta(hours=-1)},
        "the certificate expired at 20",
        "request a fresh one",
    ),
    "too early": (
        {"start": HOUR, "end": 2 * HOUR},
        "the certificate is valid from 20",
        "compare the two machines' clocks",
    ),
    "the leaf alone": (
        {},
        "the certificate of its issuer CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh.local is missing from the chain",
        "put the issuing CA's certificate behind the leaf",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_mesh_ctl_says_what_is_wrong_with_the_identity_that_it_is_to_show(
    case: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    dates, cause, cure = CASES[case]
    moments = {name: present() + offset for name, offset in dates.items()}
    identity = forged(tmp_path / "mine", issuing, alone=case == "the leaf alone", **moments)
    shutil.copy(shared.root, identity.directory / "svid_bundle.pem")
    before = shared.ca.text
    done = shared.ctl(
        "cert", "list", "--ca-url", f"https://localhost:{shared.ca_port}",
        "--svid", identity.directory,
    )  # fmt: skip
    assert done.returncode == 1, done
    whose = f"our own certificate, that of spiffe://mesh.local/service/payment-worker in --svid {identity.directory}, "
    assert whose in done.stderr
    assert cause in done.stderr
    assert cure in done.stderr
    assert done.stderr.count("\n") == 1
    assert shared.ca.text == before, "it was not shown to anybody"
