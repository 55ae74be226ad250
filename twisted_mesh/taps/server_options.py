"""The options of ``mesh-server``."""

import ipaddress
from pathlib import Path
from typing import ClassVar

from pki.errors import Malformed
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.validity import parse_lifetime
from twisted_mesh.identity.bootstrap import join_token
from twisted_mesh.identity.host_names import dns_option, ip_option
from twisted_mesh.revocation.options import RevocationOptions
from twisted_mesh.taps.ca_options import key_algorithm, max_connections
from twisted_mesh.taps.service_options import ServiceOptions
from twisted_mesh.trust.freshness import freshness


class Options(ServiceOptions):
    """Options of ``twistd mesh-server``."""

    program = "mesh-server"
    synopsis = "[options]\n\nExample: twistd -n mesh-server --listen 9443 --allow spiffe://mesh.local/service/payment-worker"
    longdesc = "An mTLS service: it gets its certificate from the CA, renews it, and serves proven callers only."
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
        ["allow-file", None, None, "a file of more of --allow, one a line, read again at SIGHUP"],
        ["trust-domain", None, "mesh.local", "our trust domain"],
        ["spiffe-id", None, None, "who we are (default spiffe://TD/service/api-server)"],
        ["key", None, "ec-p256", "the kind of our keys"],
        ["ttl", None, None, "how long our certificates live (default: what the CA gives)"],
        ["listen", None, "9443", "9443, host:9443, or a Twisted endpoint string"],
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
        ["max-connections", None, None, "open connections (default: what the system allows)"],
        [
            "status",
            None,
            None,
            "serve health and metrics here, in plaintext, on loopback by default",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["dns"], self["ip"], self["allow"] = [], [], []
        self["crl"], self["crl-issuer"], self["ocsp-origin"] = [], [], []

    def opt_dns(self, name: str) -> None:
        """a DNS name that our certificate carries (repeatable; default localhost)"""
        self["dns"].append(dns_option(name))

    def opt_ip(self, address: str) -> None:
        """an IP address that our certificate carries (repeatable; default 127.0.0.1)"""
        self["ip"].append(ip_option(address))

    def opt_allow(self, pattern: str) -> None:
        """who may connect: a SPIFFE ID, * for one segment, ** for any rest (repeatable)"""
        self["allow"].append(SpiffePattern.parse(pattern))

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
        self["allow-file"] = Path(self["allow-file"]) if self["allow-file"] else None
        self["join-token"] = join_token(self["join-token"], self["join-token-file"])
        trust_domain = self["trust-domain"] = TrustDomain.parse(self["trust-domain"])
        self["spiffe-id"] = (
            SpiffeId.parse(self["spiffe-id"])
            if self["spiffe-id"]
            else trust_domain.member("service", "api-server")
        )
        if self["spiffe-id"].trust_domain != trust_domain:
            raise Malformed(
                f"--spiffe-id {self['spiffe-id']} is not of --trust-domain {trust_domain}"
            )
        if not self["dns"] and not self["ip"]:
            self["dns"], self["ip"] = ["localhost"], [ipaddress.ip_address("127.0.0.1")]
        self["key"] = key_algorithm(self["key"], "key")
        self["ttl"] = parse_lifetime(self["ttl"]) if self["ttl"] else None
        self["max-connections"] = max_connections(self["max-connections"])
        self["rotate-at"] = rotation_share(self["rotate-at"])
        self["freshness"] = freshness(self["revocation-max-age"], self["on-stale"])
        self["revocation-sources"] = RevocationOptions.parse(
            self["crl"],
            self["crl-issuer"],
            self["ocsp"],
            self["ocsp-origin"],
            self.get("on-stale"),
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
