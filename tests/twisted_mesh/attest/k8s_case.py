"""A pod's token, as the conformance suite tries it: by the cluster's keys in a file, as nothing waits there."""

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.twisted_mesh.attest.api_server import ApiServer, written
from tests.twisted_mesh.attest.cases import Case
from tests.twisted_mesh.attest.test_k8s import attestor
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.evidence.interface import AttestationData


def make(stack: ExitStack) -> Case:
    directory = Path(stack.enter_context(TemporaryDirectory()))
    api, keys = ApiServer(), directory / "jwks.json"

    def write(name: str) -> None:
        api.key = name
        keys.write_bytes(api.jwks())
        keys.chmod(0o600)

    write("cluster")
    judge = attestor(written(api, directory, by_keys_alone=True, jwks_file=str(keys)))
    token = api.token()
    shown = Evidence(attestation=AttestationData("k8s", json.dumps(token).encode()))
    return Case(judge, lambda: shown, lambda: write("the next"))
