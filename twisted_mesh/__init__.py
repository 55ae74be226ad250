"""The reactor side of the mesh: it listens, connects, stores, schedules and logs, and asks
:mod:`pki` for every decision.

The nouns below are loaded when they are first used, so that ``import twisted_mesh`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted_mesh.identity.agent import Agent, Wanted
    from twisted_mesh.identity.manager import CertificateManager
    from twisted_mesh.revocation.feed import Feed
    from twisted_mesh.tls.contexts import ContextFactory
    from twisted_mesh.trust.connections import ConnectionRegistry
    from twisted_mesh.trust.store import TrustStore
    from twisted_mesh.trust.trust import Trust

_HOMES = {
    "Agent": "twisted_mesh.identity.agent",
    "CertificateManager": "twisted_mesh.identity.manager",
    "ConnectionRegistry": "twisted_mesh.trust.connections",
    "ContextFactory": "twisted_mesh.tls.contexts",
    "Feed": "twisted_mesh.revocation.feed",
    "Trust": "twisted_mesh.trust.trust",
    "TrustStore": "twisted_mesh.trust.store",
    "Wanted": "twisted_mesh.identity.agent",
}

__all__ = [
    "Agent",
    "CertificateManager",
    "ConnectionRegistry",
    "ContextFactory",
    "Feed",
    "Trust",
    "TrustStore",
    "Wanted",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'twisted_mesh' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
