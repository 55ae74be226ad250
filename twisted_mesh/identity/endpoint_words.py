"""What the strings of ``mesh:`` endpoints say of an identity: who it is, where its CA is, whom it believes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pki.errors import Malformed, printable
from pki.keys import KeyAlgorithm
from pki.rules.facts import RuleAction
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.spki_pin import PinSet
from pki.validity import parse_lifetime
from twisted_mesh.identity.agent import Wanted
from twisted_mesh.identity.bootstrap import ca_client, join_token
from twisted_mesh.identity.host_names import dns_option, ip_option
from twisted_mesh.identity.proving import Proving
from twisted_mesh.identity.shared import Asked
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.environment import default_state_dir
from twisted_mesh.tls import groups
from twisted_mesh.trust.freshness import freshness

if TYPE_CHECKING:  # most have no policy and demand no receipts, and load nothing of it
    from pki.ct.receipt import SctDemand
    from twisted_mesh.trust.peer_policy import PeerPolicy

#: The words that say it: endpoints of the same words share one.
IDENTITY = (
    *("spiffe-id", "trust-domain", "state-dir", "ca-url", "ca-file", "ca-fingerprint", "ca-user"),
    *("join-token-file", "attest", "dns", "ip", "key", "ttl", "revocation-max-age", "on-stale"),
    *("peer-pin", "peer-pin-mode", "peer-pin-until", "require-pq", "policy"),
    *("require-sct", "ct-logs", "ct-logs-key"),
)


def asked_for(
    reactor: IReactor,
    given: Mapping[str, str],
    service: str,
    usual: TrustDomain,
    action: RuleAction,
) -> Asked:
    """What the words say of an identity; others are passed over.

    Where nothing else is said we are that ``service`` of the ``usual`` domain; ``action`` is what the endpoint does.
    Raises :class:`PkiError`.
    """
    words = {name: text for name, text in given.items() if name in IDENTITY}
    spiffe_id = _who(words, service, usual)
    trust_domain = spiffe_id.trust_domain
    words |= {"spiffe-id": str(spiffe_id), "trust-domain": str(trust_domain)}
    if not words.keys() & {"dns", "ip"}:
        words |= {"dns": "localhost", "ip": "127.0.0.1"}
    state_dir = Path(words["state-dir"]) if "state-dir" in words else default_state_dir()
    algorithm = KeyAlgorithm.parse(words.get("key", KeyAlgorithm.EC_P256), "key=")
    token = join_token(None, words.get("join-token-file"))
    requires_pq = _requires_pq(words.get("require-pq", "no"))
    demand = _demand(words)
    wanted = Wanted(
        spiffe_id,
        state_dir,
        tuple(map(dns_option, several(words.get("dns")))),
        tuple(map(ip_option, several(words.get("ip")))),
        parse_lifetime(words["ttl"]) if "ttl" in words else None,
        algorithm,
        token=token,
        freshness=freshness(words.get("revocation-max-age"), words.get("on-stale", "fail-closed")),
        pins=PinSet.parse(
            words["peer-pin"].split(";") if "peer-pin" in words else (),
            words.get("peer-pin-mode"),
            words.get("peer-pin-until"),
            now=wall_clock(),
            spoken="{}=".format,
        ),
        proving=Proving.parse(
            words.get("attest"),
            words.get("ca-url"),
            has_token=token is not None,
            requires_pq=requires_pq,
            option="attest=",
        ),
        requires_pq=requires_pq,
        policy=_policy(words.get("policy"), action),
        demand=demand,
    )
    client = ca_client(
        reactor,
        words.get("ca-url"),
        words.get("ca-file"),
        state_dir,
        trust_domain,
        ca_fingerprint=words.get("ca-fingerprint"),
        ca_user=words.get("ca-user"),
        requires_pq=requires_pq,
        demand=demand,
    )
    return Asked(tuple(sorted(words.items())), client, wanted)


def _requires_pq(text: str) -> bool:
    """What ``require-pq=`` says. Raises :class:`PkiError`."""
    if text not in ("yes", "no"):
        raise Malformed(f"require-pq={printable(text, 40)}: write yes or no")
    if text == "yes":
        groups.demand()
    return text == "yes"


def _demand(words: Mapping[str, str]) -> "SctDemand | None":
    """The receipts that ``require-sct=`` demands, of logs as the file says now. Raises :class:`PkiError`."""
    if not words.keys() & {"require-sct", "ct-logs", "ct-logs-key"}:
        return None
    from twisted_mesh.trust.sct_options import SctOptions

    options = SctOptions.parse(
        words.get("require-sct"), words.get("ct-logs"), words.get("ct-logs-key"), "{}=".format
    )
    return None if options is None else options.now()


def _who(words: Mapping[str, str], service: str, usual: TrustDomain) -> SpiffeId:
    """Raises :class:`PkiError`."""
    domain, named = words.get("trust-domain"), words.get("spiffe-id")
    trust_domain = TrustDomain.parse(domain) if domain else None
    if named is None:
        return (trust_domain or usual).member("service", service)
    spiffe_id = SpiffeId.parse(named)
    if trust_domain not in (None, spiffe_id.trust_domain):
        raise Malformed(f"spiffe-id={spiffe_id} is not of trust-domain={trust_domain}")
    return spiffe_id


def _policy(path: str | None, action: RuleAction) -> "PeerPolicy | None":
    """The rules in that file or directory, as they are now. Raises :class:`PkiError`."""
    if path is None:
        return None
    from twisted_mesh.state.policy_files import read_policy
    from twisted_mesh.trust.peer_policy import PeerPolicy

    return PeerPolicy.of_whoever(read_policy(Path(path), "policy="), action)


def several(text: str | None) -> list[str]:
    """What is written with commas: Twisted keeps the last only of options of one name."""
    return [] if text is None else text.split(",")
