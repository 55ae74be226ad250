"""A record of certificates, as an attestor of SVIDs asks it."""

from datetime import datetime

from attrs import define, field

from tests.authorities import NOW
from twisted_mesh.attest.svid import SvidAttestor
from twisted_mesh.stores.records import IssuedCertificate


@define
class Record:
    """What is on record, by serial."""

    rows: dict[int, IssuedCertificate] = field(factory=dict)
    time: datetime = NOW
    asked: list[int] = field(factory=list)

    async def find(self, serial: int) -> IssuedCertificate | None:
        self.asked.append(serial)
        return self.rows.get(serial)

    @property
    def attestor(self) -> SvidAttestor:
        return SvidAttestor(self.find, lambda: self.time)
