"""``--federation``: our bundle for other trust domains (SPIFFE Federation section 5.2), and nothing else.

Nobody is asked who they are (sections 5.2.1.3 and 5.2.2.3). A cache on the way must ask each time whether it has the
latest: two that differ would have the sequence number go back, as whoever follows us sees it.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256

from twisted.internet.interfaces import IReactorTime

from pki.svid.bundle import TrustBundle
from twisted_mesh.ca.api.document_site import DocumentSite
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.limits.rate_limit import Rate

#: Where it is, when nobody has said otherwise.
PATH = "/bundle"
_HEADERS = {"cache-control": "public, no-cache", "x-content-type-options": "nosniff"}


class BundleSite(DocumentSite):
    """One public document, as it is now."""

    def __init__(
        self, bundle: Callable[[], TrustBundle], rate: Rate, clock: IReactorTime, path: str = PATH
    ) -> None:
        super().__init__(rate, clock)
        self._bundle = bundle
        self._path = path
        self._of: TrustBundle | None = None
        self._answer = Answer(b"")

    @property
    def documents(self) -> Mapping[str, Callable[[], Answer]]:
        """See :class:`DocumentSite`."""
        return {self._path: self._latest}

    def _latest(self) -> Answer:
        """Written once, however many ask."""
        bundle = self._bundle()
        if bundle != self._of:
            body = bundle.to_jwks()
            etag = f'"{sha256(body).hexdigest()[:32]}"'
            self._of, self._answer = bundle, Answer(body, headers={**_HEADERS, "etag": etag})
        return self._answer
