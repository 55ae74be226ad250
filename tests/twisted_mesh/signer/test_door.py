"""Who may call a signer: whoever has a pinned key, and the users that the kernel says they are."""

import os
import re
import socket
from contextlib import closing

import pytest
from attrs import frozen
from OpenSSL import crypto

from tests.authorities import NOW, key
from twisted_mesh.signer.door import LocalCallers, RemoteCallers, tell_of_refusal
from twisted_mesh.signer.errors import ForeignCaller
from twisted_mesh.tls.pinned_server import PinnedCallers
from twisted_mesh.tls.self_signed import SelfSigned

CALLER, STRANGER, SIGNER = (
    SelfSigned.of(key(name), "whoever", NOW) for name in ("a caller", "a stranger", "a signer")
)


@frozen
class _Transport:
    handle: socket.socket | None = None
    shown: crypto.X509 | None = None

    def getHandle(self) -> socket.socket | None:
        return self.handle

    def getPeerCertificate(self) -> crypto.X509 | None:
        return self.shown


def showing(whose: SelfSigned) -> _Transport:
    return _Transport(shown=crypto.X509.from_cryptography(whose.certificate))


def test_were_the_handshake_to_let_somebody_in_the_request_would_not() -> None:
    callers = RemoteCallers(PinnedCallers(SIGNER, {CALLER.pin}, tell_of_refusal))
    assert callers.who(showing(CALLER)) == f"pin:{CALLER.pin}"
    with pytest.raises(ForeignCaller, match="was not shown"):
        callers.who(_Transport())
    with pytest.raises(ForeignCaller, match=re.escape(str(STRANGER.pin))):
        callers.who(showing(STRANGER))


def test_a_user_is_who_the_kernel_says() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with closing(ours), closing(theirs):
        transport = _Transport(ours)
        uid = os.geteuid()
        assert LocalCallers({uid}).who(transport) == f"uid:{uid}"
        assert LocalCallers({uid}).key(transport) == (f"uid:{uid}", True)  # type: ignore[arg-type]
        with pytest.raises(ForeignCaller, match=f"--allow-uid {uid}"):
            LocalCallers({uid + 1}).who(transport)
        assert LocalCallers({uid + 1}).key(transport) == ("others", False)  # type: ignore[arg-type]
