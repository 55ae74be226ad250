"""``mesh-ca --policy``: what is in force, made of its files, and of whom else these say to ask."""

from functools import partial
from pathlib import Path

from cryptography import x509
from twisted.internet.threads import deferToThread

from pki.errors import HOSTILE_INPUT
from pki.rules.rule import External
from twisted_mesh.ca import meters
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.policy.external import DecisionPoint, bad_point, point_url
from twisted_mesh.ca.policy.gate import PolicyGate
from twisted_mesh.ca.policy.journal import DecisionJournal
from twisted_mesh.ca.policy.policy import Policy
from twisted_mesh.http.https_client import HttpsClient
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import read_trusted
from twisted_mesh.state.policy_files import read_policy

_LARGEST_CA_FILE = 1024 * 1024
#: Below the CA's part of the state directory.
JOURNAL = "policy"


def read_policy_of(path: Path, reactor: IReactor, *, requires_pq: bool) -> Policy:
    """What is in the file or directory of ``--policy`` now. Raises :class:`PkiError` with all that is wrong."""
    rules = read_policy(path)
    points = [
        (frozenset(one.actions), _point(one, reactor, requires_pq=requires_pq))
        for one in rules.externals
    ]
    return Policy(str(path), rules, points)


def policy_gate(
    path: Path,
    found: Policy | None,
    reactor: IReactor,
    audit: AuditLog,
    directory: Path,
    *,
    requires_pq: bool,
) -> PolicyGate:
    """What asks the policy ``found`` of ``path``."""
    return PolicyGate(
        audit,
        wall_clock,
        partial(read_policy_of, path, reactor, requires_pq=requires_pq),
        found,
        DecisionJournal(directory / JOURNAL),
        deferToThread,
        meters.count_decision,
    )


def _point(external: External, reactor: IReactor, *, requires_pq: bool) -> DecisionPoint:
    name, url, roots = external.name, point_url(external.url, external.name), None
    if external.ca_file:
        if url.scheme != "https":
            raise bad_point(name, "ca_file is for https:// only")
        pem = read_trusted(Path(external.ca_file), f"ca_file of {name}", _LARGEST_CA_FILE)
        try:
            roots = tuple(x509.load_pem_x509_certificates(pem))
        except HOSTILE_INPUT:
            raise bad_point(
                name, f"ca_file {external.ca_file} holds no certificates in PEM"
            ) from None
    client = HttpsClient(reactor, roots, external.timeout, "decision point", requires_pq)
    return DecisionPoint(name, external.url, url, client)
