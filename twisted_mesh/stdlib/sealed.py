"""A context of which nothing can be changed: whoever is handed one of the mesh cannot weaken it."""

import ssl
from typing import Any

from twisted_mesh.stdlib.refusals import ContextSealed


class Sealed(ssl.SSLContext):
    """A context of which nothing can be changed once it is sealed."""

    _is_sealed = False

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._is_sealed or name in self._own:
            super().__setattr__(name, value)
            return
        if name == "options":
            # Every library adds some. None can be taken away; what is added has no effect.
            if value & self.options == self.options:
                return
        elif (name == "post_handshake_auth" and not value) or getattr(
            self, name, _NOTHING
        ) == value:
            return
        raise ContextSealed(
            f"{name} of a context of the mesh cannot be changed: it stands for TLS 1.3, a certificate on both sides "
            "and the mesh's judgement"
        )

    def __delattr__(self, name: str) -> None:
        raise ContextSealed(f"{name} of a context of the mesh cannot be removed")

    _own: frozenset[str] = frozenset()

    def load_verify_locations(self, *_: Any, **__: Any) -> None:
        """Without effect, as requests says it of every context: whom it believes the mesh says."""

    def load_default_certs(self, *_: Any, **__: Any) -> None:
        """Without effect."""

    def set_default_verify_paths(self) -> None:
        """Without effect."""


_NOTHING = object()


def _refusing(name: str) -> Any:
    def refuse(self: ssl.SSLContext, *_: Any, **__: Any) -> Any:
        raise ContextSealed(f"{name}: a context of the mesh is the mesh's to configure")

    refuse.__name__ = name
    refuse.__doc__ = "Refused."
    return refuse


for _name in (
    "load_cert_chain",
    "load_dh_params",
    "set_ciphers",
    "set_ciphersuites",
    "set_ecdh_curve",
    "set_groups",
    "set_npn_protocols",
    "set_psk_client_callback",
    "set_psk_server_callback",
    "set_client_sigalgs",
    "set_server_sigalgs",
    "set_servername_callback",
):
    # Also what this Python does not know yet.
    setattr(Sealed, _name, _refusing(_name))
