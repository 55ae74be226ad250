"""The options of ``mesh-signer``."""

import os
import pwd
from pathlib import Path
from typing import ClassVar

from pki.errors import Malformed, discreet
from pki.signing.policy import LARGEST_POLICY, BadSigningPolicy, SigningPolicy
from pki.spiffe import TrustDomain
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.keystores.spec import parse_store
from twisted_mesh.limits.rate_limit import Rate
from twisted_mesh.state.directory import read_trusted
from twisted_mesh.taps.service_options import ServiceOptions

_LARGEST_UID = 2**32 - 2


class Options(ServiceOptions):
    """Options of ``twistd mesh-signer``."""

    program = "mesh-signer"
    synopsis = (
        "[options]\n\nExample: twistd -n mesh-signer --trust-domain mesh.local --allow-uid mesh-ca\n"
        "         twistd -n mesh-ca --root-key signer:unix:/run/mesh/signer/signer.sock "
        "--issuing-key signer:unix:/run/mesh/signer/signer.sock"
    )
    longdesc = (
        "Holds the keys of a CA in a process of its own, and signs what its policy lets it: whoever takes the CA's "
        "process has no key, no CA certificate, no other trust domain and no empty list of what is revoked."
    )
    optParameters: ClassVar = [
        [
            "trust-domain",
            None,
            None,
            "the one that is signed for (default: the policy's, else mesh.local)",
        ],
        ["policy", None, None, "what is signed, in TOML: names, lifetimes, keys; HUP rereads it"],
        ["socket", None, None, "the unix socket (default <state>/signer/signer.sock)"],
        [
            "listen",
            None,
            None,
            "also at this address, over TLS 1.3, for whoever has a --client-pin",
        ],
        ["key-store", None, None, "where new keys are made: a pkcs11: URI (default: files)"],
        ["token-pin-file", None, None, "the PIN of that token, in a file"],
        ["token-pin-fd", None, None, "the same, from this file descriptor"],
        ["key-passphrase-file", None, None, "encrypt key files with the passphrase in this file"],
        ["key-passphrase-fd", None, None, "the same, from this file descriptor"],
        ["certificate-rate", None, "100:2000", "certificates a second, and at once after a pause"],
        ["revocation-rate", None, "50:500", "CRLs and OCSP answers, apart from those"],
        ["status", None, None, "health in plaintext at this address of this machine"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["allow-uid"] = []
        self["client-pin"] = []
        self["dns"] = []

    def opt_allow_uid(self, user: str) -> None:
        """a user of this machine who may call the socket, by name or number (repeatable; default: our own)"""
        self["allow-uid"].append(_uid(user))

    def opt_client_pin(self, pin: str) -> None:
        """the key of a caller over TLS, sha256/BASE64, as the CA prints it (repeatable)"""
        self["client-pin"].append(SpkiHash.parse(pin))

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        said = self["trust-domain"]
        self["trust-domain"] = None if said is None else TrustDomain.parse(said)
        self["policy"] = Path(self["policy"]) if self["policy"] else None
        self["signing-policy"] = self.read_policy()
        self["socket"] = Path(self["socket"]) if self["socket"] else None
        self["certificate-rate"] = Rate.parse(self["certificate-rate"])
        self["revocation-rate"] = Rate.parse(self["revocation-rate"])
        if self["listen"] and not self["client-pin"]:
            raise Malformed("--listen needs --client-pin: over TLS only pinned keys may call")
        if self["client-pin"] and not self["listen"]:
            raise Malformed("--client-pin is about who calls at --listen, which is not given")
        if self["key-store"] is not None:
            store, asked = parse_store(self["key-store"], "--key-store")
            if store.startswith("signer:"):
                raise Malformed(
                    "--key-store is where a signer's own keys are: behind a signer is no other signer"
                )
            if asked.keys() - {"module-path", "module-name", "pin-source"}:
                raise Malformed(
                    "--key-store names a store: each key's algorithm is asked for when it is made"
                )
            self["key-store"] = store
        for name in ("key-passphrase", "token-pin"):
            self._understand_secret(name)

    def _understand_secret(self, name: str) -> None:
        path, descriptor = self[f"{name}-file"], self[f"{name}-fd"]
        if path is not None and descriptor is not None:
            raise Malformed(f"--{name}-file and --{name}-fd say the same thing: give one of them")
        self[f"{name}-file"] = Path(path) if path is not None else None
        if descriptor is not None:
            if not (descriptor.isascii() and descriptor.isdigit() and len(descriptor) <= 5):
                raise Malformed(f"--{name}-fd takes the number of an open file descriptor")
            self[f"{name}-fd"] = int(descriptor)

    def read_policy(self) -> SigningPolicy:
        """What ``--policy`` says now; the default one without it. Raises :class:`PkiError`."""
        said: TrustDomain | None = self["trust-domain"]
        path: Path | None = self["policy"]
        if path is None:
            return SigningPolicy(said or TrustDomain("mesh.local"))
        try:
            text = read_trusted(path, "--policy", LARGEST_POLICY).decode()
        except UnicodeDecodeError:
            raise Malformed(f"--policy {path} is not UTF-8") from None
        try:
            policy = SigningPolicy.parse(text)
        except BadSigningPolicy as error:
            raise Malformed(f"--policy {path}: {error}") from None
        if said is not None and policy.trust_domain != said:
            raise Malformed(
                f"--policy {path} is for {policy.trust_domain}, and --trust-domain is {said}: say one of them"
            )
        return policy

    @property
    def uids(self) -> frozenset[int]:
        """Who may call the socket."""
        return frozenset(self["allow-uid"] or [os.geteuid()])


def _uid(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST_UID:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise Malformed(
            f"--allow-uid {discreet(text, 60)!r} is no user of this machine: write a name or a number"
        ) from None
