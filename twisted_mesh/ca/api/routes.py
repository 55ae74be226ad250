"""The table of routes: what the CA can be asked."""

from http import HTTPStatus

from pki.policy.policy import Action
from twisted_mesh.api import (
    agent_messages,
    attestation_messages,
    blocked_key_messages,
    ca_messages,
    certification_messages,
    federation_messages,
    jwt_messages,
    key_messages,
    log_messages,
    messages,
    policy_messages,
    root_messages,
)
from twisted_mesh.ca.api import (
    agents,
    attesting,
    audit,
    blocked_keys,
    certificates,
    certification,
    connections,
    entries,
    federation,
    health,
    issuing,
    jwt,
    keys,
    policy,
    published,
    roots,
    trust,
)
from twisted_mesh.ca.api.request import FILTERS, Call
from twisted_mesh.ca.api.response import JSON, Answer
from twisted_mesh.ca.api.route import Route
from twisted_mesh.ca.parts import CaParts


async def _crl(ca: CaParts, call: Call) -> Answer:
    return await published.crl(ca, call.query.get("issuer"))


async def _ocsp(ca: CaParts, call: Call) -> Answer:
    return await published.ocsp(ca, call.body, call.who)


async def _ocsp_in_path(ca: CaParts, call: Call) -> Answer:
    return await published.ocsp_in_path(ca, call.rest, call.who)


#: The parameters of what is read in pages.
_PAGE = ("start", "limit")
#: Method and path of everything that the CA answers.
ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/api/v1/sign"): Route(
        Action.SIGN,
        issuing.sign,
        messages.SignAnswer,
        body=messages.SignRequest,
        status=HTTPStatus.CREATED,
        proving=messages.SignRequest,
    ),
    ("POST", attestation_messages.CHALLENGE): Route(
        Action.ATTEST,
        attesting.challenge,
        attestation_messages.Challenge,
        body=attestation_messages.ChallengeRequest,
    ),
    ("GET", "/api/v1/ca"): Route(Action.READ_CA, published.roots, published.PEM),
    ("GET", "/api/v1/bundle"): Route(Action.READ_BUNDLE, published.bundle, JSON, query=["keys"]),
    ("GET", "/api/v1/crl"): Route(
        Action.READ_CRL,
        _crl,
        published.CRL,
        query=["issuer"],
    ),
    ("GET", "/api/v1/crls"): Route(
        Action.READ_CRL,
        published.crls,
        messages.PublishedCrls,
    ),
    ("POST", "/api/v1/ocsp"): Route(
        Action.ASK_OCSP,
        _ocsp,
        published.OCSP_RESPONSE,
        body=published.OCSP_REQUEST,
    ),
    ("GET", "/api/v1/ocsp/*"): Route(
        Action.ASK_OCSP,
        _ocsp_in_path,
        published.OCSP_RESPONSE,
        rest="request",
        is_deep=True,
    ),
    ("GET", "/api/v1/trust"): Route(
        Action.READ_TRUST,
        trust.trust,
        messages.TrustAnswer,
        query=["after", "store", "log", "wait", "edition", "instance", "holds", "top"],
    ),
    ("POST", "/api/v1/revoke"): Route(
        Action.REVOKE,
        certificates.revoke,
        messages.Revoked | messages.RevokedMany,
        body=messages.RevokeRequest,
    ),
    ("GET", "/api/v1/certificates"): Route(
        Action.LIST,
        certificates.list_certificates,
        messages.CertificatePage,
        query=sorted(FILTERS),
    ),
    ("GET", "/api/v1/certificates/*"): Route(
        Action.LIST,
        certificates.show_certificate,
        messages.CertificateDetails,
        rest="serial",
    ),
    ("GET", "/api/v1/connections"): Route(
        Action.READ_CONNECTIONS, connections.read, messages.KnownConnections
    ),
    ("POST", "/api/v1/connections"): Route(
        Action.TELL_CONNECTIONS,
        connections.tell,
        messages.ReportTaken,
        body=messages.ConnectionsReport,
    ),
    ("GET", "/api/v1/audit/checkpoint"): Route(
        Action.READ_CHECKPOINT, audit.checkpoint, log_messages.LogHead
    ),
    ("GET", "/api/v1/audit/checkpoints"): Route(
        Action.READ_AUDIT, audit.checkpoints, log_messages.Checkpoints, query=_PAGE
    ),
    ("GET", "/api/v1/audit/entries"): Route(
        Action.READ_AUDIT, audit.entries, log_messages.LogEntries, query=_PAGE
    ),
    ("GET", "/api/v1/audit/record"): Route(
        Action.READ_AUDIT, audit.record, log_messages.RecordRows, query=_PAGE
    ),
    ("GET", "/api/v1/audit/proof"): Route(
        Action.READ_CHECKPOINT,
        audit.proof,
        log_messages.Proof,
        query=["position", "size", "from", "to"],
    ),
    ("GET", "/api/v1/health"): Route(Action.READ_HEALTH, health.health, messages.Health),
    ("POST", "/api/v1/ca/detach-root"): Route(
        Action.DETACH_ROOT,
        issuing.detach_root,
        ca_messages.Detached,
        body=ca_messages.DetachRequest,
    ),
    ("POST", "/api/v1/ca/revoke-issuing"): Route(
        Action.REVOKE_ISSUING,
        issuing.revoke_issuing,
        ca_messages.IssuingRevoked,
        body=ca_messages.RevokeIssuing,
    ),
    ("POST", "/api/v1/ca/rotate-issuing"): Route(
        Action.ROTATE_ISSUING,
        keys.rotate_issuing,
        key_messages.IssuingRotated,
        body=key_messages.RotateIssuing,
    ),
    ("POST", "/api/v1/ca/keys"): Route(
        Action.PROVE_KEYS, keys.prove, key_messages.KeyRows, body=key_messages.ProveKeys
    ),
    ("POST", "/api/v1/ca/root/csr"): Route(
        Action.CERTIFY_ISSUING,
        certification.request,
        certification_messages.IssuingRequest,
        body=certification_messages.CertificationRequested,
    ),
    ("POST", "/api/v1/ca/root/install"): Route(
        Action.CERTIFY_ISSUING,
        certification.install,
        certification_messages.InstallationAnswer,
        body=certification_messages.Installation,
    ),
    ("POST", "/api/v1/ca/sign-backup"): Route(
        Action.SIGN_BACKUP,
        issuing.sign_backup,
        ca_messages.BackupSignature,
        body=ca_messages.BackupRequest,
    ),
    ("POST", "/api/v1/ca/root/distrust"): Route(
        Action.CHANGE_ROOTS,
        roots.distrust,
        root_messages.RootDistrusted,
        body=root_messages.DistrustRequest,
    ),
    ("GET", "/api/v1/ca/root"): Route(Action.READ_ROOTS, roots.status, root_messages.RootStatus),
    **{
        ("POST", f"/api/v1/ca/root/{step}"): Route(
            Action.CHANGE_ROOTS,
            handler,
            root_messages.RootStepDone,
            body=root_messages.RootStepRequest,
        )
        for step, handler in roots.STEPS.items()
    },
    ("GET", "/api/v1/entries"): Route(
        Action.READ_ENTRIES, entries.list_entries, messages.Registrations
    ),
    ("POST", "/api/v1/entries"): Route(
        Action.CHANGE_ENTRIES,
        entries.create_entry,
        messages.Registration,
        body=messages.NewRegistration,
        status=HTTPStatus.CREATED,
    ),
    ("GET", "/api/v1/entries/*"): Route(
        Action.READ_ENTRIES, entries.show_entry, messages.Registration
    ),
    ("DELETE", "/api/v1/entries/*"): Route(
        Action.CHANGE_ENTRIES, entries.delete_entry, messages.Deleted, query=["reason"]
    ),
    ("GET", "/api/v1/tokens"): Route(Action.READ_TOKENS, entries.list_tokens, messages.TokenRows),
    ("POST", "/api/v1/tokens"): Route(
        Action.CHANGE_TOKENS,
        entries.create_token,
        messages.MadeToken,
        body=messages.NewToken,
        status=HTTPStatus.CREATED,
    ),
    ("DELETE", "/api/v1/tokens/*"): Route(
        Action.CHANGE_TOKENS, entries.revoke_token, messages.RevokedToken, query=["reason"]
    ),
    ("POST", "/api/v1/agent/jwt"): Route(
        Action.SERVE_WORKLOADS,
        jwt.issue_for_agent,
        agent_messages.AgentJwt,
        body=agent_messages.AgentJwtRequest,
        status=HTTPStatus.CREATED,
    ),
    ("GET", "/api/v1/jwt/keys"): Route(
        Action.READ_JWT_KEYS, jwt.list_keys, jwt_messages.JwtKeyRows
    ),
    ("POST", "/api/v1/jwt/rotate"): Route(
        Action.CHANGE_JWT_KEYS, jwt.rotate, jwt_messages.JwtKeyRows, body=jwt_messages.RotateJwtKey
    ),
    ("DELETE", "/api/v1/jwt/keys/*"): Route(
        Action.CHANGE_JWT_KEYS,
        jwt.retire,
        jwt_messages.JwtKeyRows,
        query=["reason"],
        rest="kid",
    ),
    ("GET", "/api/v1/agent/entries"): Route(
        Action.SERVE_WORKLOADS, agents.entries, agent_messages.AgentEntries, query=["after", "wait"]
    ),
    ("POST", "/api/v1/agent/sign"): Route(
        Action.SERVE_WORKLOADS,
        agents.sign,
        messages.SignAnswer,
        body=agent_messages.AgentSignRequest,
        status=HTTPStatus.CREATED,
    ),
    ("GET", "/api/v1/agents"): Route(
        Action.READ_AGENTS, agents.list_agents, agent_messages.AgentRows
    ),
    ("POST", "/api/v1/agents"): Route(
        Action.CHANGE_AGENTS,
        agents.create_token,
        messages.MadeToken,
        body=agent_messages.NewAgentToken,
        status=HTTPStatus.CREATED,
    ),
    ("GET", "/api/v1/agents/*"): Route(
        Action.READ_AGENTS, agents.show_agent, agent_messages.AgentRow, rest="name"
    ),
    ("POST", "/api/v1/agents/*"): Route(
        Action.CHANGE_AGENTS,
        agents.end_agent,
        agent_messages.AgentEnded,
        body=agent_messages.EndAgent,
        rest="name",
    ),
    ("POST", "/api/v1/entries/agents"): Route(
        Action.CHANGE_ENTRIES,
        agents.allow_agents,
        messages.Registration,
        body=agent_messages.NewAgents,
        status=HTTPStatus.CREATED,
    ),
    ("POST", "/api/v1/entries/aliases"): Route(
        Action.CHANGE_ENTRIES,
        agents.create_alias,
        messages.Registration,
        body=agent_messages.NewAlias,
        status=HTTPStatus.CREATED,
    ),
    ("GET", "/api/v1/claims"): Route(
        Action.READ_AGENTS, agents.list_claims, agent_messages.ClaimRows, query=["after"]
    ),
    ("POST", "/api/v1/claims"): Route(
        Action.CHANGE_AGENTS,
        agents.evict_claim,
        agent_messages.AgentEnded,
        body=agent_messages.EvictClaim,
    ),
    ("GET", "/api/v1/federation"): Route(
        Action.READ_FEDERATION, federation.list_federations, federation_messages.FederationRows
    ),
    ("POST", "/api/v1/federation"): Route(
        Action.CHANGE_FEDERATION,
        federation.add_federation,
        federation_messages.FederationRow,
        body=federation_messages.NewFederation,
        status=HTTPStatus.CREATED,
    ),
    ("GET", "/api/v1/federation/*"): Route(
        Action.READ_FEDERATION,
        federation.show_federation,
        federation_messages.FederationRow,
        rest="domain",
    ),
    ("POST", "/api/v1/federation/*"): Route(
        Action.CHANGE_FEDERATION,
        federation.refresh_federation,
        federation_messages.FederationRow,
        body=federation_messages.RefreshFederation,
        rest="domain",
    ),
    ("DELETE", "/api/v1/federation/*"): Route(
        Action.CHANGE_FEDERATION,
        federation.remove_federation,
        federation_messages.FederationEnded,
        query=["reason"],
        rest="domain",
    ),
    ("GET", "/api/v1/keys/blocked"): Route(
        Action.READ_BLOCKED_KEYS,
        blocked_keys.list_blocked,
        blocked_key_messages.BlockedKeyRows,
    ),
    ("POST", "/api/v1/keys/blocked"): Route(
        Action.CHANGE_BLOCKED_KEYS,
        blocked_keys.block,
        blocked_key_messages.BlockedKeyRow,
        body=blocked_key_messages.NewBlockedKey,
        status=HTTPStatus.CREATED,
    ),
    ("DELETE", "/api/v1/keys/blocked/*"): Route(
        Action.CHANGE_BLOCKED_KEYS,
        blocked_keys.unblock,
        blocked_key_messages.KeyUnblocked,
        query=["reason"],
        rest="key",
    ),
    ("GET", "/api/v1/policy"): Route(Action.READ_POLICY, policy.show, policy_messages.PolicyStatus),
    ("POST", "/api/v1/policy/reload"): Route(
        Action.CHANGE_POLICY,
        policy.reload,
        policy_messages.PolicyStatus,
        body=policy_messages.ReloadPolicy,
    ),
    ("POST", "/api/v1/policy/withdraw"): Route(
        Action.CHANGE_POLICY,
        policy.withdraw,
        policy_messages.PolicyStatus,
        body=policy_messages.WithdrawPolicy,
    ),
    ("GET", "/api/v1/policy/decisions"): Route(
        Action.READ_POLICY, policy.decisions, policy_messages.Decisions, query=["last"]
    ),
    ("GET", "/livez"): Route(Action.LIVENESS, health.liveness, messages.Alive),
    ("GET", "/readyz"): Route(Action.READINESS, health.readiness, messages.Ready),
    ("GET", "/metrics"): Route(Action.METRICS, health.metrics, "text/plain"),
}
