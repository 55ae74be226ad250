"""The options of every service that has an identity from a CA: whom it asks, who it is, who is revoked."""

import ipaddress
from typing import Any, ClassVar

from twisted.logger import Logger

from pki.errors import Malformed
from pki.keys import KeyAlgorithm
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.spki_pin import PinSet
from pki.validity import parse_lifetime
from twisted_mesh.api.client import CaClient
from twisted_mesh.identity.agent import Wanted
from twisted_mesh.identity.bootstrap import ca_client, join_token
from twisted_mesh.identity.host_names import dns_option, ip_option
from twisted_mesh.identity.provider import IProvider
from twisted_mesh.identity.proving import KINDS, Proving
from twisted_mesh.interfaces import IReactor
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.taps.key_exchange import REQUIRE_PQ, demand_hybrid_groups
from twisted_mesh.taps.sct_options import SctOptions
from twisted_mesh.trust.freshness import freshness
from twisted_mesh.workload.source_options import SourceOption

_USUAL_DOMAIN = "mesh.local"


class IdentityOptions(SctOptions):
    """What mesh-server and mesh-agent have in common."""

    default_id: ClassVar[tuple[str, ...]] = ()
    """The path of who it is if nothing is said; empty where something must be."""
    optParameters: ClassVar = [
        [
            "ca-url",
            None,
            None,
            "unix:PATH, http://localhost:PORT or https://HOST:PORT (default: the state's socket)",
        ],
        ["ca-file", None, None, "the root certificate of a CA asked over https"],
        ["ca-fingerprint", None, None, "in its place the root's fingerprint, sha256:HEX"],
        [
            "ca-user",
            None,
            None,
            "whose the CA at the socket is, if not root's, ours, or its directory's owner",
        ],
        [
            "join-token",
            None,
            None,
            "what mesh-ctl token create printed: buys the first certificate",
        ],
        ["join-token-file", None, None, "the same from a file of one line"],
        [
            "attest",
            None,
            None,
            f"in their place evidence of the platform, shown to the CA alone: KIND[:FILE], a kind is {KINDS}",
        ],
        [
            "source",
            None,
            None,
            "workload:unix:///PATH: the identity comes from that SPIFFE Workload API (SPIRE's, or mesh-agent's), and "
            "no CA is asked; workload: alone for the one in $SPIFFE_ENDPOINT_SOCKET",
        ],
        ["trust-domain", None, None, "our trust domain (default mesh.local; with --source its)"],
        ["key", None, "ec-p256", "the kind of our keys"],
        ["ttl", None, None, "how long our certificates live (default: what the CA gives)"],
        ["rotate-at", None, "0.5", "the share of a certificate's life after which it is renewed"],
        [
            "revocation-max-age",
            None,
            None,
            "how old what is known of revocations may be (default: as old as our own certificate gets)",
        ],
        ["on-stale", None, "fail-closed", "then refuse everybody (fail-closed), or go on (grace)"],
        [
            "ocsp",
            None,
            None,
            "ask this http: URL about each new peer; aia: whom its certificate names",
        ],
        [
            "status",
            None,
            None,
            "serve health and metrics here, in plaintext, on loopback by default",
        ],
    ]

    optFlags: ClassVar = [REQUIRE_PQ]

    def __init__(self) -> None:
        super().__init__()
        self["dns"], self["ip"] = [], []
        self["crl"], self["crl-issuer"], self["ocsp-origin"] = [], [], []

    def opt_dns(self, name: str) -> None:
        """a DNS name that our certificate carries (repeatable; default localhost)"""
        self["dns"].append(dns_option(name))

    def opt_ip(self, address: str) -> None:
        """an IP address that our certificate carries (repeatable; default 127.0.0.1)"""
        self["ip"].append(ip_option(address))

    def opt_crl(self, place: str) -> None:
        """a CRL to heed, besides what the CA says: a file, or an http: or file: URL (repeatable)"""
        self["crl"].append(place)

    def opt_crl_issuer(self, file: str) -> None:
        """the certificate of a CA whose CRL may come, besides our own CAs' (repeatable)"""
        self["crl-issuer"].append(file)

    def opt_ocsp_origin(self, origin: str) -> None:
        """http://HOST:PORT that a certificate may name for --ocsp aia (repeatable)"""
        self["ocsp-origin"].append(origin)

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        if self["require-pq"]:
            demand_hybrid_groups()
        self["sct-demand"] = self.read_demand()
        source = self["source"] = SourceOption.parse(self)
        self["join-token"] = join_token(self["join-token"], self["join-token-file"])
        self["attest"] = Proving.parse(
            self._attest(),
            self["ca-url"],
            has_token=self["join-token"] is not None,
            requires_pq=bool(self["require-pq"]),
        )
        if source is None:
            trust_domain = self["trust-domain"] = TrustDomain.parse(
                _USUAL_DOMAIN if self["trust-domain"] is None else self["trust-domain"]
            )
            self["spiffe-id"] = self._spiffe_id(trust_domain)
            if self["spiffe-id"].trust_domain != trust_domain:
                raise Malformed(
                    f"--spiffe-id {self['spiffe-id']} is not of --trust-domain {trust_domain}"
                )
        else:
            self["trust-domain"], self["spiffe-id"] = source.trust_domain, source.chosen.spiffe_id
        if not self["dns"] and not self["ip"]:
            self["dns"], self["ip"] = ["localhost"], [ipaddress.ip_address("127.0.0.1")]
        self["key"] = KeyAlgorithm.parse(self["key"], "--key")
        self["ttl"] = parse_lifetime(self["ttl"]) if self["ttl"] else None
        self["rotate-at"] = rotation_share(self["rotate-at"])
        if self.seat is not None:
            self["state-dir"] = self.seat.memory_dir(self["state-dir"])
        self["freshness"] = freshness(self["revocation-max-age"], self["on-stale"])
        self["revocation-sources"] = RevocationOptions.parse(
            self["crl"],
            self["crl-issuer"],
            self["ocsp"],
            self["ocsp-origin"],
            self.get("on-stale"),
        )

    def _attest(self) -> str | None:
        """``--attest`` with its file's whole path: it is read again when this process may work elsewhere."""
        text: str | None = self["attest"]
        kind, colon, file = (text or "").partition(":")
        return f"{kind}:{self._from_here(file, '--attest')}" if colon and file else text

    def _spiffe_id(self, trust_domain: TrustDomain) -> SpiffeId:
        if self["spiffe-id"]:
            return SpiffeId.parse(self["spiffe-id"])
        if not self.default_id:
            raise Malformed(
                f"--spiffe-id is needed: who the files are for, like {trust_domain.member('service', 'web')}"
            )
        return trust_domain.member(*self.default_id)

    # What they mean.

    def origin(self, reactor: IReactor, log: Logger) -> CaClient | IProvider:
        """Who gives the identity: the CA that is asked, or a Workload API. Raises :class:`PkiError`."""
        if self.seat is not None and self["source"] is None:
            return self.seat.client(reactor, log)
        if self["source"] is not None:
            provider: IProvider = self["source"].source(reactor, self["revocation-sources"], log)
            return provider
        return self.ca_client(reactor)

    def ca_client(self, reactor: IReactor) -> CaClient:
        """The CA that is asked. Raises :class:`PkiError`."""
        return ca_client(
            reactor,
            self["ca-url"],
            self["ca-file"],
            self["state-dir"],
            self["trust-domain"],
            ca_fingerprint=self["ca-fingerprint"],
            ca_user=self["ca-user"],
            requires_pq=bool(self["require-pq"]),
            demand=self["sct-demand"],
        )

    def wanted(self) -> Wanted:
        """Which identity is asked for. A join token is given away with it: it is not kept here."""
        token: Any = self.pop("join-token")
        return Wanted(
            self["spiffe-id"],
            self["state-dir"],
            tuple(self["dns"]),
            tuple(self["ip"]),
            self["ttl"],
            self["key"],
            self["rotate-at"],
            token,
            self["freshness"],
            self["revocation-sources"],
            self.get("pins", PinSet()),
            self["attest"],
            self.get("peer-policy"),
            bool(self["require-pq"]),
            self["sct-demand"],
        )


def rotation_share(text: str) -> float:
    """``--rotate-at``. Raises :class:`Malformed`."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.1 <= share <= 0.9:
        raise Malformed("--rotate-at is a share of the lifetime from 0.1 to 0.9, like 0.5")
    return share
