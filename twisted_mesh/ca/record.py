"""The record of what was issued and revoked, as it is read."""

from attrs import frozen

from pki.serial import serial_hex
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import Feed, IssuedCertificate, Page, Query, Unknown


@frozen(eq=False, repr=False)
class CertificateRecord:
    """What the store knows of certificates. Whether a caller may read it is asked before."""

    store: IStore

    async def certificates(self, query: Query) -> Page:
        """A page of them, the newest first. Raises :class:`StoreError`, and :class:`BadCursor` among these."""
        return await self.store.list(query)

    async def certificate(self, serial: int) -> IssuedCertificate:
        """Raises :class:`Unknown`, and :class:`StoreError`."""
        known = await self.store.find(serial)
        if known is None:
            raise Unknown(f"no certificate has the serial {serial_hex(serial)}")
        return known

    async def revocations(self, after: int, store: str = "") -> Feed:
        """What was revoked after a position of this store's feed; all of it for another store's position."""
        feed = await self.store.feed(after)
        if store and store != feed.store and after:
            feed = await self.store.feed(0)
        return feed
