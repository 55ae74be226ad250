"""Attestors of tokens of other issuers, each with a good token, for the suite that every attestor runs."""

import json
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve

from tests.twisted_mesh.attest.issuers import (
    AUDIENCE,
    ISSUER,
    Moment,
    good_claims,
    keys_file,
    shown,
    signed,
)
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest.azure import AzureAttestor
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.gcp import ISSUER as GOOGLE
from twisted_mesh.attest.gcp import GcpAttestor
from twisted_mesh.attest.oidc import OidcAttestor

TENANT = "11111111-2222-3333-4444-555555555555"
_PRINCIPAL = "0f3c1f52-7a5e-4a8e-9d0b-3c9e1c2a4b5d"
#: By kind: the attestor's class, its table, and what a good token claims beside the usual.
_KINDS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "oidc": (
        OidcAttestor,
        f'[ci]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nclaims = {{ repository = "org/*" }}\n'
        'selectors = ["repository"]\n',
        {"repository": "org/api"},
    ),
    "gcp": (
        GcpAttestor,
        f'audience = "{AUDIENCE}"\nprojects = ["shop"]\n',
        {
            "iss": GOOGLE,
            "email": "web@shop.example",
            "email_verified": True,
            "google": {
                "compute_engine": {
                    "project_id": "shop",
                    "zone": "europe-west1-b",
                    "instance_id": "7",
                    "instance_name": "blog-7",
                }
            },
        },
    ),
    "azure": (
        AzureAttestor,
        f'audience = "{AUDIENCE}"\ntenants = ["{TENANT}"]\n',
        {
            "iss": f"https://sts.windows.net/{TENANT}/",
            "tid": TENANT,
            "oid": _PRINCIPAL,
            "xms_mirid": f"/subscriptions/{_PRINCIPAL}/resourcegroups/front/providers/"
            "Microsoft.Compute/virtualMachines/blog",
        },
    ),
}


def token_case(
    kind: str, keys: str = "", reactor: Any = None
) -> tuple[Any, Callable[[], Evidence], Callable[[], object]]:
    """The attestor, what gathers good evidence, and what has that be of no worth any more.

    It has its issuer's keys from a file, or by that ``reactor`` from where ``keys`` says.
    """
    attestor_class, table, claims = _KINDS[kind]
    moment = Moment()
    means = moment.means if reactor is None else evolve(moment.means, reactor=reactor)
    with TemporaryDirectory() as directory:
        path = keys_file(Path(directory))
        place = f'jwks_url = "{keys}"' if keys else f"jwks_file = {json.dumps(str(path))}"
        said = tomllib.loads(f"{table}{place}\n")
        attestor = attestor_class.of(attestor_class.read(said, f"[{kind}]"), means)

    def gather() -> Evidence:
        wanted = outcome(attestor.challenge(kind, b""))
        audience = AUDIENCE if wanted is None else f"{AUDIENCE}?nonce={wanted.decode()}"
        return shown(kind, signed(good_claims(aud=audience, **claims)))

    def spoil() -> None:
        moment.time += timedelta(hours=1)

    return attestor, gather, spoil


TOKEN_KINDS = tuple(_KINDS)
#: What a good token of each kind claims beside the usual.
CLAIMS = {kind: claims for kind, (_, _, claims) in _KINDS.items()}
