"""A CA's answer to who asks for all its CRLs, from the test kit's CA in memory."""

from datetime import timedelta

from attrs import define, field

from pki.crl.issue import issue_crl
from pki.issuing.authority import Authority
from pki.svid.x509svid import certificates_pem
from twisted_mesh.api.messages import IssuerCrl, PublishedCrls
from twisted_mesh.testing import Clock, MemoryCa, at_once

HOUR = timedelta(hours=1)


@define(eq=False)
class Publishing:
    """A CA, its clock, and the CRLs of the moment."""

    clock: Clock = field(factory=Clock)
    ca: MemoryCa = field(init=False)
    number: int = 1
    others: list[Authority] = field(factory=list)
    """More issuing CAs: the next one, say."""
    left_out: list[Authority] = field(factory=list)
    is_behind: bool = False
    """Whether the lists do not have what was revoked last."""

    def __attrs_post_init__(self) -> None:
        self.ca = MemoryCa(clock=self.clock)

    def row(self, authority: Authority, signer: Authority | None = None) -> IssuerCrl:
        """The CRL of ``authority``, signed by ``signer`` where a test forges it."""
        now = self.clock.now()
        by = signer or authority
        revoked = [] if self.is_behind else list(self.ca.revoked.of(by.key_id))
        der = at_once(issue_crl(by, revoked, self.number, this_update=now, next_update=now + HOUR))
        return IssuerCrl(certificates_pem([authority.certificate]).decode(), der)

    def answer(self) -> PublishedCrls:
        """All of them, made now."""
        self.number += 1
        authorities = [self.ca.root, self.ca.issuing, *self.others]
        return PublishedCrls([self.row(one) for one in authorities if one not in self.left_out])
