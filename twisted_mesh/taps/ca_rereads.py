"""What a CA reads again at SIGHUP."""

from collections.abc import Iterator
from typing import Any

from attrs import define
from twisted.internet.threads import deferToThread

from pki.keys.key_list import KeyList
from twisted_mesh.ca.audit_log import OURSELVES
from twisted_mesh.ca.blocked_authorities import take_up
from twisted_mesh.ca.blocked_keys import read_lists
from twisted_mesh.ca.entries_file import read_entries
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import passphrase_file, read_passphrase
from twisted_mesh.taps.ca_listeners import CaListeners
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.ca_transparency import reread_logs
from twisted_mesh.taps.reread import Reread
from twisted_mesh.tls.web import WebCertificate


@define(eq=False, repr=False)
class CaRereads:
    """The files that its options name, as far as they may change while it runs."""

    options: Options
    parts: CaParts
    listeners: CaListeners
    keys: KeyFiles
    stores: KeyStores
    reactor: Any
    """An ``IReactor``."""
    credentials: str | None
    """systemd's directory of them."""

    def all(self) -> list[Reread]:
        """In the order in which they are read."""
        return list(self._found())

    def _found(self) -> Iterator[Reread]:
        options, parts = self.options, self.parts
        if options["entries"] is not None:
            yield Reread(f"--entries {options['entries']}", self._entries)
        if paths := options["blocked-keys"]:
            yield Reread(f"--blocked-keys {', '.join(paths)}", self._blocked)
        platforms = self.listeners.platforms
        if platforms is not None and options["attestors"] is not None:

            async def attestors() -> str:
                return platforms.read()

            yield Reread(f"--attestors {options['attestors']}", attestors)
        if parts.transparency is not None and options["ct-logs"] is not None:
            yield reread_logs(options["ct-logs"], parts.transparency)
        yield from options.reread_workload_attestors(self.listeners.containers, self.reactor)
        if options["policy"] is not None:
            yield Reread(f"--policy {options['policy']}", self._policy)
        for option, certificate in (
            ("--oidc-cert", self.listeners.web_certificate),
            ("--federation-cert", self.listeners.federation_certificate),
        ):
            if certificate is not None:

                async def load(shown: WebCertificate = certificate) -> str:
                    return shown.load(wall_clock())

                yield Reread(f"{option} {certificate.certificate}", load)
        if self.stores.stores:
            pin_file = options["token-pin-file"]
            what = "the key stores' PINs" if pin_file is None else f"--token-pin-file {pin_file}"
            yield Reread(what, self.stores.try_again)
        source = passphrase_file(options["key-passphrase-file"], self.credentials)
        if source is not None and (source.is_file() or not source.exists()):  # a pipe is read once
            yield Reread(f"the passphrase in {source}", self._passphrase)

    async def _entries(self) -> str:
        filed = read_entries(self.options["entries"], self.options["trust-domain"])
        return await self.parts.entries.replace_filed(filed)

    async def _blocked(self) -> str:
        lists: tuple[KeyList, ...] = await deferToThread(read_lists, self.options["blocked-keys"])
        return take_up(self.parts.blocked, lists, self.parts.current)

    async def _policy(self) -> str:
        return await self.parts.policy.reload(OURSELVES, "SIGHUP")

    async def _passphrase(self) -> str:
        new = read_passphrase(self.options["key-passphrase-file"], None, self.credentials)
        changed: bool = await deferToThread(self.keys.replace_passphrase, new)
        return "the keys are encrypted with it, and so are the next ones" if changed else ""
