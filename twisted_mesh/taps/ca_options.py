"""The options of ``twistd mesh-ca``."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pki.errors import Malformed, discreet
from pki.issuing.profile import ISSUING
from pki.issuing.root_conditions import RootMode
from pki.issuing.rotation import LEAST_LIVES
from pki.jwt_svid import rotation
from pki.jwt_svid.algorithms import SIGNING_ALGORITHMS
from pki.keys import KeyAlgorithm
from pki.policy.lifetimes import Lifetimes
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.spki_pin import SpkiHash
from pki.validity import format_duration, parse_duration
from twisted_mesh.http.address import split_url
from twisted_mesh.limits.quota import DEFAULT_ALLOWANCE, Allowance
from twisted_mesh.limits.rate_limit import DEFAULT_RATE, Rate
from twisted_mesh.taps.connection_options import max_connections
from twisted_mesh.taps.ct_log_options import CtLogOptions
from twisted_mesh.taps.federation_options import FederationOptions, refresh_hint
from twisted_mesh.taps.key_exchange import REQUIRE_PQ, demand_hybrid_groups
from twisted_mesh.taps.key_options import KeyOptions, key_parameters
from twisted_mesh.taps.listening import is_port
from twisted_mesh.taps.oidc_options import OidcOptions, issuer_url
from twisted_mesh.taps.service_options import ServiceOptions
from twisted_mesh.taps.workload_attestor_options import WorkloadAttestorOptions

_MAX_LIFE = timedelta(days=365)
_MAX_ISSUING_LIFE = timedelta(days=1825)
_MAX_JWT_LIFE = timedelta(hours=24)
_JWT_KEY_LIFE = timedelta(days=7)


class Options(WorkloadAttestorOptions, KeyOptions, CtLogOptions, ServiceOptions):
    """Options of ``twistd mesh-ca``."""

    program = "mesh-ca"
    synopsis = "[options]\n\nExample: twistd -n mesh-ca --listen :8443 --cert-duration 1h"
    longdesc = "A certificate authority that issues short-lived X.509 certificates with SPIFFE IDs."
    optParameters: ClassVar = [
        ["port", None, None, "TLS port on 127.0.0.1 (default 8443)"],
        [
            "listen",
            None,
            None,
            "the TLS address instead: 8443, host:8443, or a Twisted endpoint string",
        ],
        ["socket", None, None, "the unix socket (default <state>/ca/ca.sock)"],
        [
            "workload-socket",
            None,
            None,
            "serve the SPIFFE Workload API and Envoy's SDS to this machine's processes here",
        ],
        ["trust-domain", None, "mesh.local", "the trust domain that this CA is the root of"],
        ["cert-duration", None, "1h", "how long certificates live unless asked otherwise"],
        ["max-cert-duration", None, "24h", "how long they live at most"],
        *key_parameters(),
        [
            "root-rotation",
            None,
            RootMode.REMIND,
            "remind in time that the root ends, or auto: also replace it, step by step",
        ],
        [
            "issuing-duration",
            None,
            None,
            "how long a new issuing CA lives (default 365d, or what --max-cert-duration needs)",
        ],
        ["key-passphrase-file", None, None, "encrypt key files with the passphrase in this file"],
        ["key-passphrase-fd", None, None, "the same, from this file descriptor"],
        [
            "jwt-key",
            None,
            "ec-p256",
            "the keys that sign JWT-SVIDs: ec-p256, ec-p384, rsa-2048 or rsa-4096",
        ],
        ["jwt-key-duration", None, None, "how long each of them signs (default 7d)"],
        ["jwt-duration", None, "5m", "how long JWT-SVIDs live unless asked otherwise"],
        ["max-jwt-duration", None, "1h", "how long they live at most"],
        ["store", None, "sqlite", "sqlite in the state directory, or memory:"],
        ["keep-expired", None, "30d", "how long certificates stay in the record after their end"],
        ["keep-audit", None, "365d", "how long the text of an act stays in the audit log"],
        ["issuance-log", None, None, "append one JSON line a certificate to this file"],
        ["entries", None, None, "registration entries besides those in the record: a TOML file"],
        [
            "attestors",
            None,
            None,
            "the platforms of which evidence is taken, each a table of this TOML file; HUP rereads it",
        ],
        [
            "policy",
            None,
            None,
            "rules in CEL, which must allow all that is issued: a TOML file, or a directory of them; HUP rereads it",
        ],
        [
            "oidc-issuer",
            None,
            None,
            "the URL that JWT-SVIDs have as iss, where others find --oidc: https://HOST[/PATH]",
        ],
        [
            "oidc",
            None,
            None,
            "serve the JWT keys by OpenID Connect Discovery, and nothing else: unix:PATH for a web server in front; "
            "or an address, with --oidc-cert and --oidc-key",
        ],
        [
            "oidc-cert",
            None,
            None,
            "the web certificate of --oidc, with its chain, in PEM; HUP rereads it",
        ],
        ["oidc-key", None, None, "its key, in PEM"],
        [
            "federation",
            None,
            None,
            "serve our bundle to other trust domains, and nothing else, at this address: https://HOST:PORT/bundle",
        ],
        [
            "federation-profile",
            None,
            None,
            "how that proves itself: https_spiffe by the CA's own SVID, https_web by the next two (default "
            "https_spiffe)",
        ],
        [
            "federation-cert",
            None,
            None,
            "the web certificate of --federation, with its chain, in PEM; HUP rereads it",
        ],
        ["federation-key", None, None, "its key, in PEM"],
        ["refresh-hint", None, "5m", "how soon whoever polls our bundle is to ask for it again"],
        ["public-url", None, None, "where callers of other machines reach this CA"],
        [
            "crl-http",
            None,
            None,
            "serve CRLs and OCSP, which are signed, on this plaintext address; certificates then name it",
        ],
        [
            "rate-limit",
            None,
            None,
            f"requests a second of one caller, and how many at once: RATE[:BURST], or off (default {DEFAULT_RATE})",
        ],
        [
            "quota",
            None,
            None,
            f"certificates an hour of one ID, and of one entry: ID:ENTRY, or off (default {DEFAULT_ALLOWANCE})",
        ],
        [
            "max-connections",
            None,
            None,
            "open connections at each door (default: what the system allows)",
        ],
        [
            "status",
            None,
            None,
            "serve health and metrics, and nothing else, in plaintext here: loopback, or unix:PATH",
        ],
        [
            "insecure-http",
            None,
            None,
            "serve everybody on this plaintext loopback port: for experiments only",
        ],
    ]

    optFlags: ClassVar = [
        [
            "bundle-ml-dsa",
            None,
            "show ML-DSA roots in the public bundle too, by which go-spiffe of today drops it as a whole",
        ],
        ["no-default-entry", None, "at the first start: make no entry for the CA's own user"],
        [
            "clock-is-right",
            None,
            "this machine's clock is right, although later times are on record",
        ],
        REQUIRE_PQ,
    ]

    def __init__(self) -> None:
        super().__init__()
        self["admin"], self["monitor"] = [], []
        self["leaf-key"], self["blocked-keys"] = [], []
        self["ct-withdrawn-log"] = []

    def opt_admin(self, pattern: str) -> None:
        """who is an administrator over mutual TLS: a SPIFFE ID or pattern (repeatable)"""
        self["admin"].append(SpiffePattern.parse(pattern))

    def opt_leaf_key(self, name: str) -> None:
        """a kind of key that certificates are issued for, all if there is none: ec-p256 (repeatable)"""
        self["leaf-key"].append(KeyAlgorithm.parse(name, "--leaf-key"))

    def opt_monitor(self, pattern: str) -> None:
        """who may read health and metrics over mutual TLS, and no more: a SPIFFE ID or pattern (repeatable)"""
        self["monitor"].append(SpiffePattern.parse(pattern))

    def opt_ct_withdrawn_log(self, log_id: str) -> None:
        """the id of a log, in base64, whose receipts our endpoints are to count no more (repeatable)"""
        if not SpkiHash.is_written(f"sha256/{log_id}"):
            raise Malformed(
                f"--ct-withdrawn-log {discreet(log_id, 100)} is no id of a log: 44 characters of base64, as lists of "
                "logs have it"
            )
        self["ct-withdrawn-log"].append(log_id)

    def opt_blocked_keys(self, path: str) -> None:
        """a list of keys that nothing is certified for: SHA-256s, Debian's or badkeys'; HUP rereads it (repeatable)"""
        self["blocked-keys"].append(path)

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        if self["require-pq"]:
            demand_hybrid_groups()
        if self["workload-socket"]:
            path = self._from_here(self["workload-socket"], "--workload-socket")
            from twisted_mesh.taps.workload_socket import parse_socket

            self["workload-socket"] = parse_socket(path, "--workload-socket")
        self.understand_workload_attestors(serves=True)
        if self["port"] is not None and self["listen"] is not None:
            raise Malformed("--port and --listen say the same thing: give one of them")
        self["listen"] = self["listen"] or self["port"] or "8443"
        self["trust-domain"] = TrustDomain.parse(self["trust-domain"])
        for option in ("admin", "monitor"):
            for pattern in self[option]:
                if pattern.trust_domain != self["trust-domain"]:
                    raise Malformed(
                        f"--{option} {pattern} is not of --trust-domain {self['trust-domain']}"
                    )
        for option in ("entries", "attestors", "policy"):
            self[option] = Path(self[option]) if self[option] else None
        if self["public-url"] is not None:
            self["public-url"] = public_url(self["public-url"])
        self["rate-limit"] = (
            Rate.parse(self["rate-limit"]) if self["rate-limit"] is not None else DEFAULT_RATE
        )
        self["quota"] = (
            Allowance.parse(self["quota"]) if self["quota"] is not None else DEFAULT_ALLOWANCE
        )
        self["max-connections"] = max_connections(self["max-connections"])
        self.understand_keys()
        if self["root-rotation"] not in tuple(RootMode):
            raise Malformed("--root-rotation is remind or auto")
        self["root-rotation"] = RootMode(self["root-rotation"])
        self["jwt-key"] = KeyAlgorithm.parse(self["jwt-key"], "--jwt-key", SIGNING_ALGORITHMS)
        default, most = (
            parse_duration(self[name]) for name in ("cert-duration", "max-cert-duration")
        )
        if not timedelta(seconds=1) <= default <= most <= _MAX_LIFE:
            raise Malformed(
                "--cert-duration is at least 1s and at most --max-cert-duration, which is at most 365d"
            )
        self["lifetimes"] = Lifetimes(default, most)
        self._understand_jwt()
        for name in ("keep-expired", "keep-audit"):
            self[name] = parse_duration(self[name])
        self["issuing-duration"] = issuing_life(self["issuing-duration"], most)
        self._understand_passphrase()
        self.understand_logs()
        if self["insecure-http"] is not None and not is_port(self["insecure-http"]):
            raise Malformed("--insecure-http takes a port number; it listens on 127.0.0.1 only")

    def _understand_jwt(self) -> None:
        default, most = (
            parse_duration(self[name]) for name in ("jwt-duration", "max-jwt-duration")
        )
        if not timedelta(seconds=1) <= default <= most <= _MAX_JWT_LIFE:
            raise Malformed(
                "--jwt-duration is at least 1s and at most --max-jwt-duration, which is at most 24h: a token is as "
                "good in a thief's hands, and nobody can revoke it"
            )
        self["jwt-lifetimes"] = Lifetimes(default, most)
        self["jwt-key-duration"] = jwt_key_life(self["jwt-key-duration"], most)
        if self["oidc-issuer"] is not None:
            self["oidc-issuer"] = issuer_url(self["oidc-issuer"])
        self["oidc"] = OidcOptions.parse(
            self["oidc"], self["oidc-issuer"], self["oidc-cert"], self["oidc-key"]
        )

        self["federation"] = FederationOptions.parse(
            self["federation"],
            self["federation-profile"],
            self["federation-cert"],
            self["federation-key"],
        )
        self["refresh-hint"] = refresh_hint(self["refresh-hint"])

    def _understand_passphrase(self) -> None:
        path, descriptor = self["key-passphrase-file"], self["key-passphrase-fd"]
        if path is not None and descriptor is not None:
            raise Malformed(
                "--key-passphrase-file and --key-passphrase-fd say the same thing: give one of them"
            )
        self["key-passphrase-file"] = Path(path) if path is not None else None
        if descriptor is not None:
            if not (descriptor.isascii() and descriptor.isdigit() and len(descriptor) <= 5):
                raise Malformed("--key-passphrase-fd takes the number of an open file descriptor")
            self["key-passphrase-fd"] = int(descriptor)


def public_url(text: str) -> str:
    """``--public-url``, without a slash at its end. Raises :class:`Malformed`."""
    if split_url(text, {"https": 443, "http": 80}) is None:
        raise Malformed(
            f"--public-url {discreet(text, 100)} is no URL: write https://HOST:PORT, without a path"
        )
    return text.removesuffix("/")


def issuing_life(text: str | None, longest_leaf: timedelta) -> timedelta:
    """How long new issuing CAs live. Raises :class:`Malformed`."""
    least = LEAST_LIVES * longest_leaf
    if text is None:
        return max(ISSUING.lifetime, least)
    life = parse_duration(text)
    if not least <= life <= _MAX_ISSUING_LIFE:
        raise Malformed(
            f"--issuing-duration is at least {LEAST_LIVES} times --max-cert-duration, here {format_duration(least)}, "
            f"and at most {format_duration(_MAX_ISSUING_LIFE)}"
        )
    return life


def jwt_key_life(text: str | None, longest: timedelta) -> timedelta:
    """For how long a key signs JWT-SVIDs. Raises :class:`Malformed`."""
    least = rotation.LEAST_LIVES * longest
    if text is None:
        return max(_JWT_KEY_LIFE, least)
    life = parse_duration(text)
    if not least <= life <= _MAX_LIFE:
        raise Malformed(
            f"--jwt-key-duration is at least {rotation.LEAST_LIVES} times --max-jwt-duration, here "
            f"{format_duration(least)}, and at most {format_duration(_MAX_LIFE)}"
        )
    return life
