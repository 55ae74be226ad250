"""Who may call a signer: users of this machine over its socket, and pinned keys over TLS 1.3. No names anywhere."""

from collections.abc import Collection
from typing import Any

from attrs import define
from twisted.internet.interfaces import ITransport

from pki.errors import PkiError
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.attest.credentials import peer_uid
from twisted_mesh.runtime.log import logger
from twisted_mesh.signer.errors import ForeignCaller
from twisted_mesh.tls.pinned_server import PinnedCallers, key_shown

_log = logger("signer")


@define(eq=False)
class LocalCallers:
    """The users of this machine that may call, by what the kernel recorded when they connected."""

    uids: Collection[int]

    def who(self, transport: Any) -> str:
        """``uid:1000``. Raises :class:`ForeignCaller` for others."""
        uid = peer_uid(transport.getHandle())
        if uid not in self.uids:
            raise ForeignCaller(
                f"uid {uid} may not call this signer: start it with --allow-uid {uid}, if that is the CA's user"
            )
        return f"uid:{uid}"

    def key(self, transport: ITransport) -> tuple[str, bool]:
        """By what its connections are counted, and whether that may call at all."""
        try:
            return self.who(transport), True
        except PkiError:
            return "others", False


@define(eq=False)
class RemoteCallers:
    """Those whose key is pinned, over TLS."""

    pinned: PinnedCallers

    def who(self, transport: Any) -> str:
        """``pin:sha256/…``. Raises :class:`ForeignCaller`, were the handshake to have let somebody else in."""
        found = self.pinned.who(transport)
        if found is None:
            shown = key_shown(transport) or "that was not shown"
            raise ForeignCaller(f"the key {shown} may not call this signer")
        return f"pin:{found}"


def tell_of_refusal(found: SpkiHash | None) -> None:
    """Log that somebody with this key was refused; None for one that cannot be read."""
    if found is None:
        _log.warn(
            "A caller whose certificate cannot be read was refused", event="signer-caller-refused"
        )
    else:
        _log.warn(
            "A caller with the key {pin} was refused: it is not pinned (--client-pin)",
            event="signer-caller-refused",
            pin=str(found),
        )
