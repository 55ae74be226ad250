"""An agent and a CA, one of them a version older: what the other says besides is passed over, what it lacks is none."""

import json
from typing import Any

from msgspec import UNSET

from pki.policy.entry import read_entry
from tests.authorities import MESH
from twisted_mesh.api.agent_messages import AgentEntries, AgentSignRequest
from twisted_mesh.api.body import read_shape
from twisted_mesh.http.json import parse_json

#: An entry as a CA tells of it that has never heard of hints.
OLD: dict[str, Any] = {
    "id": "0123456789abcdef",
    "selectors": ["unix:uid:7"],
    "spiffe_id": "spiffe://mesh.local/service/web",
    "dns_names": [],
    "ip_addresses": [],
    "ttl": None,
    "max_ttl": None,
    "keys": [],
    "comment": "",
    "parent": "spiffe://mesh.local/mesh/agent/node-1",
}


def heard(*entries: dict[str, Any], **more: Any) -> AgentEntries:
    said = {"version": "1", "entries": list(entries), **more}
    return read_shape("the CA", AgentEntries, json.dumps(said).encode())


def test_an_agent_reads_what_an_older_ca_tells() -> None:
    (document,) = heard(OLD).entries
    assert document.hint is UNSET
    assert read_entry(document.id, MESH, document).hint == ""


def test_an_agent_passes_over_what_a_newer_ca_tells_besides() -> None:
    told = heard({**OLD, "hint": "main", "federates_with": ["b.example"]}, next="2", keys=[])
    (document,) = told.entries
    entry = read_entry(document.id, MESH, document)
    assert (entry.hint, str(entry.parent)) == ("main", OLD["parent"])


def test_a_ca_passes_over_what_a_newer_agent_asks_besides() -> None:
    asked = {
        "csr": "x",
        "requested_id": OLD["spiffe_id"],
        "entry": OLD["id"],
        "selectors": OLD["selectors"],
    }
    newer = {**asked, "attestation": {"kind": "tpm"}}
    assert parse_json(json.dumps(newer).encode(), AgentSignRequest) == AgentSignRequest(**asked)
