"""``join``: from words to an identity."""

import ssl
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pki.errors import Malformed
from pki.keys import KeyAlgorithm
from pki.policy.join_token import JoinToken
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid import names
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.spki_pin import PinSet
from pki.validity import parse_lifetime
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.proving import Proving
from twisted_mesh.identity.saved_svid import SavedSvid, identity_path
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import StateDirectory, read_file
from twisted_mesh.state.environment import default_state_dir
from twisted_mesh.stdlib.ca_connection import CaConnection
from twisted_mesh.stdlib.identity import JoinedIdentity
from twisted_mesh.stdlib.policies import rules_at
from twisted_mesh.stdlib.settings import insist_on_hybrid, known_to_ssl
from twisted_mesh.stdlib.source import BlockingSource

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

#: Seconds for one request to the CA.
_REQUEST = 10.0


def join(
    spiffe_id: str,
    *,
    ca_url: str | None = None,
    ca_fingerprint: str | None = None,
    ca_file: str | Path | None = None,
    ca_user: str | None = None,
    join_token: str | None = None,
    attest: str | None = None,
    dns: str | Iterable[str] = (),
    ip: str | Iterable[str] = (),
    key: str = "ec-p256",
    ttl: str | timedelta | None = None,
    state_dir: str | Path | None = None,
    rotate_at: float = 0.5,
    peer_pin: str | Iterable[str] = (),
    peer_pin_mode: str | None = None,
    peer_pin_until: str | datetime | None = None,
    policy: str | Path | None = None,
    require_pq: bool = False,
    require_sct: int | None = None,
    ct_logs: str | Path | None = None,
    ct_logs_key: str | Path | None = None,
    timeout: float | None = 30.0,
) -> JoinedIdentity:
    """Be ``spiffe_id`` from now on, until the identity that is returned is closed.

    Blocks until there is a certificate; a CA that does not answer is asked again for ``timeout`` seconds (None: for
    ever). The other arguments say what the options of ``mesh-server`` of those names do. Raises
    :class:`pki.PkiError` with the reason, also for words that cannot be meant, :class:`NoHybridGroup` and
    :class:`KeyNotKnown`.
    """
    wanted = SpiffeId.parse(spiffe_id)
    if not wanted.path:
        raise Malformed(f"{wanted} names a trust domain: a workload's ID has a path")
    if not 0 < rotate_at < 1:
        raise Malformed(
            f"rotate_at is a share of a certificate's life, between 0 and 1: {rotate_at:g}"
        )
    pins = PinSet.parse(
        _listed(peer_pin),
        peer_pin_mode,
        peer_pin_until.isoformat() if isinstance(peer_pin_until, datetime) else peer_pin_until,
        now=wall_clock(),
        spoken=lambda name: name.replace("-", "_"),
    )
    demand = _demand(require_sct, ct_logs, ct_logs_key)
    rules = None if policy is None else rules_at(Path(policy))
    if require_pq:
        insist_on_hybrid(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    home = default_state_dir() if state_dir is None else Path(state_dir)
    ca = _ca(
        wanted.trust_domain,
        home,
        ca_url,
        fingerprint=ca_fingerprint,
        file=ca_file,
        user=ca_user,
        requires_pq=require_pq,
        demand=demand,
    )
    where = identity_path(home, f"{ca.address} {wanted}") if ca.keeps_identity else None
    proving = Proving.parse(
        attest,
        ca_url,
        has_token=join_token is not None,
        requires_pq=require_pq,
        option="attest",
    )
    source = BlockingSource(
        ca,
        wanted,
        wall_clock,
        known_to_ssl(KeyAlgorithm.parse(key, "key")),
        tuple(names.dns_name(name) for name in _listed(dns)),
        tuple(names.address(text) for text in _listed(ip)),
        parse_lifetime(ttl) if isinstance(ttl, str) else ttl,
        None if join_token is None else JoinToken.parse(join_token),
        SavedSvid(where),
        proving=proving,
    )
    source.recall()
    identity = JoinedIdentity(source, wall_clock, rotate_at, require_pq, pins, rules, demand)
    identity.start(timeout)
    return identity


def _demand(
    required: int | None, logs: str | Path | None, key: str | Path | None
) -> "SctDemand | None":
    """Raises :class:`pki.PkiError`."""
    if required is None and logs is None and key is None:
        return None
    from twisted_mesh.trust.sct_options import SctOptions

    said = SctOptions.parse(required, logs, key, lambda name: name.replace("-", "_"))
    return None if said is None else said.now()


def _listed(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _ca(
    trust_domain: TrustDomain,
    home: Path,
    url: str | None,
    *,
    fingerprint: str | None,
    file: str | Path | None,
    user: str | None,
    requires_pq: bool,
    demand: "SctDemand | None",
) -> CaConnection:
    """How the CA is reached, and by what it is known. Raises :class:`pki.PkiError`."""
    address = CaAddress.parse(url) if url else CaAddress("unix", str(StateDirectory(home).socket))
    if user is not None and address.scheme != "unix":
        raise Malformed(f"ca_user is for a CA at a unix socket, not at {address}")
    if fingerprint is not None and file is not None:
        raise Malformed("ca_fingerprint and ca_file say the same thing: give one of them")
    if address.scheme == "https" and fingerprint is None and file is None:
        raise Malformed(
            f"{address}: whose root to believe is not known: name it with ca_fingerprint, which the CA prints at its "
            "start and mesh-ctl token create with each token, or its file with ca_file"
        )
    if address.scheme != "https" and (fingerprint is not None or file is not None):
        raise Malformed(f"ca_fingerprint and ca_file are for a CA at https://, not at {address}")
    pin, bundles = None, BundleSet()
    if fingerprint is not None:
        pin = RootPin(Fingerprint.parse(fingerprint), trust_domain)
    elif file is not None:
        data = read_file(Path(file), "ca_file")
        bundles = BundleSet.of(TrustBundle.from_pem(trust_domain, data, f"ca_file {file}"))
    return CaConnection(
        address,
        trust_domain,
        _REQUEST,
        CaUser.parse(user),
        pin,
        bundles,
        requires_pq,
        demand,
    )
