"""The identity that a CA issues to itself, and how keys of identities are made."""

from collections.abc import Awaitable, Callable, Sequence

from attrs import define
from cryptography import x509
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid
from twisted_mesh.interfaces import Identity, ISource, TrustUpdate
from twisted_mesh.runtime.clock import Now


async def new_key(algorithm: KeyAlgorithm) -> MemoryKey:
    """A fresh key; one that may take a second to make is made on a thread."""
    if algorithm.kind.is_slow:
        return await deferToThread(MemoryKey.generate, algorithm)
    return MemoryKey.generate(algorithm)


@implementer(ISource)
@define(eq=False, repr=False)
class OwnSource:
    """The CA's own identity, which it issues to itself."""

    issue: Callable[[MemoryKey], Awaitable[Sequence[x509.Certificate]]]
    """The chain for that key, leaf first."""
    bundles: Callable[[], BundleSet]
    now: Now
    where: str = "itself"

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        """A fresh key, certified by the CA that we are."""
        key = await new_key(algorithm)
        issued_at = self.now()
        chain = await self.issue(key)
        return Identity(X509Svid.assemble(chain, key), self.bundles(), issued_at)

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        """Nothing: the CA tells its own manager at once."""
        return TrustUpdate()

    def renewed(self) -> None:
        """Nobody is asked."""
