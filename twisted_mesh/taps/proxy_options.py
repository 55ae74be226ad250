"""The options of ``mesh-proxy``."""

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from attrs import evolve
from twisted.python import usage

from pki.errors import Malformed
from pki.svid.spki_pin import PinSet
from twisted_mesh.proxy.config import ListenerTable, listener_of, parse_config, parse_pins
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.taps.allow_file import read_allowed
from twisted_mesh.taps.policy_options import PolicyOptions
from twisted_mesh.taps.worker_options import WORKERS

#: What one listener is told by; a file has them as keys.
_OF_LISTENER = (
    *("mode", "listen", "target", "allow-file"),
    *("connect-timeout", "handshake-timeout", "idle-timeout", "max-conn-lifetime"),
    *("close-timeout", "max-connections", "on-cut"),
)
_REPEATED = ("allow", "allow-dns", "verify", "verify-dns")
_FLAGS = ("allow-all", "http", "proxy-protocol", "permissive", "unsafe-listen", "unsafe-target")


class Options(PolicyOptions):
    """Options of ``twistd mesh-proxy``."""

    program = "mesh-proxy"
    synopsis = (
        "[options]\n\nExample: twistd -n mesh-proxy --mode server --listen 8444 --target 127.0.0.1:8080 "
        "--allow spiffe://mesh.local/service/shop\n"
        "         twistd -n mesh-proxy --mode client --listen 127.0.0.1:8081 --target host:8444 "
        "--verify spiffe://mesh.local/service/web\n"
        "         twistd -n mesh-proxy --config proxy.toml"
    )
    longdesc = (
        "Carries connections of programs that know nothing of the mesh: mutual TLS in and plain out (server), or plain "
        "in and mutual TLS out (client). It gets its certificate from the CA, and renews it."
    )
    default_id = ("service", "proxy")
    files = ("config", "allow-file", *PolicyOptions.files)
    optParameters: ClassVar = [
        ["spiffe-id", None, None, "who we are (default spiffe://TD/service/proxy)"],
        [
            "config",
            None,
            None,
            "a TOML file of listeners, in place of one by options; reread at SIGHUP",
        ],
        ["mode", None, None, "server: callers speak mutual TLS; client: the target does"],
        [
            "listen",
            None,
            None,
            "8444, host:8444, unix:PATH, systemd:NAME or a Twisted endpoint string; a client's is on loopback",
        ],
        ["target", None, None, "where connections go: HOST:PORT, [::1]:PORT or unix:PATH"],
        ["allow-file", None, None, "a file of more of --allow, one a line, read again at SIGHUP"],
        ["connect-timeout", None, "10s", "until the target has taken a connection"],
        ["handshake-timeout", None, "10s", "until TLS is done"],
        ["idle-timeout", None, "0s", "without a byte in either direction; 0s: no bound"],
        ["max-conn-lifetime", None, "0s", "of a connection, whatever it does; 0s: no bound"],
        ["close-timeout", None, "60s", "once one side has said all, without a byte of the other"],
        [
            "max-connections",
            None,
            None,
            "carried at once, others wait (default: what descriptors allow)",
        ],
        [
            "on-cut",
            None,
            "reset",
            "what the other side hears where TLS ends without a goodbye, or by a bound: reset, or end",
        ],
        WORKERS,
    ]
    optFlags: ClassVar = [
        ["allow-all", None, "every service of our trust domain may call"],
        [
            "http",
            None,
            "HTTP is spoken: tell the caller to the target in headers, which callers cannot forge",
        ],
        ["proxy-protocol", None, "tell the caller to the target by the PROXY protocol, version 2"],
        [
            "permissive",
            None,
            "let callers without TLS in too, while you move in: anybody can call then",
        ],
        [
            "unsafe-listen",
            None,
            "let a client listen for other machines, whose words come in plaintext",
        ],
        [
            "unsafe-target",
            None,
            "let a server's target be another machine, which is told in plaintext",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        for option in _REPEATED:
            self[option] = []

    def opt_allow(self, pattern: str) -> None:
        """who may call a server: a SPIFFE ID, * for one segment, ** for any rest (repeatable)"""
        self["allow"].append(pattern)

    def opt_allow_dns(self, name: str) -> None:
        """who may call a server besides: whose certificate is valid for that name (repeatable)"""
        self["allow-dns"].append(name)

    def opt_verify(self, pattern: str) -> None:
        """who must answer a client: a SPIFFE ID or a pattern (repeatable)"""
        self["verify"].append(pattern)

    def opt_verify_dns(self, name: str) -> None:
        """a name that the certificate of who answers must be valid for besides (repeatable: one of them)"""
        self["verify-dns"].append(name)

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        self["allow-file"] = Path(self["allow-file"]) if self["allow-file"] else None
        self["config"] = self._from_here(self["config"], "--config") if self["config"] else None
        if self["config"] is not None:
            usual = {name: default for name, _, default, _ in self.optParameters}
            for name in (*_OF_LISTENER, *_REPEATED, *_FLAGS):
                if self[name] != usual.get(name, [] if name in _REPEATED else 0):
                    raise usage.UsageError(
                        f"--{name} is of one listener: with --config, write it in the file"
                    )
        elif missing := [name for name in ("mode", "listen", "target") if not self[name]]:
            raise usage.UsageError(f"--{missing[0]} is needed, or --config")
        self["listeners"] = self.read_listeners()
        self["pins"] = self.read_pins()
        self["peer-policy"] = self.read_policy()

    def policy_actions(self) -> Collection[str]:
        """See :class:`PolicyOptions`: a server's callers are accepted, and a client's target is connected to."""
        return {"accept" if listener.serves else "connect" for listener in self["listeners"]}

    def read_pins(self) -> PinSet:
        """By options, or in the table of the file: in one of them. Raises :class:`PkiError`."""
        pins, config = super().read_pins(), self["config"]
        if not config:
            return pins
        in_file = parse_pins(self.text_of("config"), config, wall_clock())
        if pins and in_file:
            raise Malformed(
                f"--config {config} has a table [peer-pins], and --peer-pin says something else of the same: keep one "
                "of them"
            )
        return in_file or pins

    @property
    def source_of_pins(self) -> str:
        """See :class:`PinOptions`: a file of listeners may have them by the next time."""
        config = self["config"]
        return super().source_of_pins or (f"--config {config}" if config else "")

    @property
    def source_of_listeners(self) -> str:
        """What is read again, in words; empty where all was said by options."""
        for option in ("config", "allow-file"):
            if self[option] is not None:
                return f"--{option} {self[option]}"
        return ""

    def read_listeners(self) -> tuple[Listener, ...]:
        """The listeners, as they are written now. Raises :class:`PkiError`."""
        listeners = self._written()
        plain = [listener.name for listener in listeners if listener.permissive]
        if self["require-pq"] and plain:
            raise Malformed(
                f"{', '.join(plain)}: a permissive listener takes callers without TLS, and so without any key "
                "exchange: leave out permissive, or --require-pq until all of them speak TLS"
            )
        return listeners

    def _written(self) -> tuple[Listener, ...]:
        if self["config"] is not None:
            return tuple(map(self._shared, parse_config(self.text_of("config"), self["config"])))
        allow = list(self["allow"])
        if self["allow-file"] is not None:
            allow += map(str, read_allowed(self["allow-file"], self.text_of("allow-file")))
        if self["allow-all"]:
            if self["trust-domain"] is None:
                raise Malformed("--allow-all means a trust domain: say which by --trust-domain")
            everybody = f"{self['trust-domain'].id}/**"
            if allow or self["allow-dns"]:
                raise Malformed(
                    "--allow-all lets every service of our trust domain call, whatever rules stand beside it: leave it "
                    f"out, or write --allow {everybody} if that is meant"
                )
            allow.append(everybody)
        table = ListenerTable(
            mode=self["mode"],
            listen=self["listen"],
            target=self["target"],
            allow=allow,
            allow_dns=self["allow-dns"],
            verify=self["verify"],
            verify_dns=self["verify-dns"],
            http=bool(self["http"]),
            proxy_protocol=bool(self["proxy-protocol"]),
            permissive=bool(self["permissive"]),
            unsafe_listen=bool(self["unsafe-listen"]),
            unsafe_target=bool(self["unsafe-target"]),
            connect_timeout=self["connect-timeout"],
            handshake_timeout=self["handshake-timeout"],
            idle_timeout=self["idle-timeout"],
            max_conn_lifetime=self["max-conn-lifetime"],
            close_timeout=self["close-timeout"],
            max_connections=_number(self["max-connections"]),
            on_cut=self["on-cut"],
        )
        return (self._shared(listener_of(table, lambda key: f"--{key}")),)

    def _shared(self, listener: Listener) -> Listener:
        """With this process' part of the connections that there may be."""
        most = listener.bounds.connections
        if most is None:
            return listener
        return evolve(listener, bounds=evolve(listener.bounds, connections=self.share(most)))


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise Malformed("--max-connections takes the number of connections")
    return int(text)
