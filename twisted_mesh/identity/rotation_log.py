"""What the log says of an identity: its certificates for people, its troubles for whoever has to mend them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import frozen
from cryptography import x509
from twisted.logger import Logger

from pki.errors import PkiError
from pki.serial import serial_pairs
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import X509Svid, subject_of
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons


@frozen
class RotationLog:
    """Writes the lines of one identity, which comes from the CA at ``where``."""

    log: Logger
    now: Now
    where: str
    announces: bool
    """Whether certificates that come as they should are told of, or troubles alone."""
    giver: str = "the CA"
    """Who is at ``where``."""

    def triggered(self, share: float | None) -> None:
        """A certificate is renewed, since so much of its life is over; or since there is another by itself."""
        if not self.announces:
            return
        if share is None:
            self.log.info(
                "Certificate rotation triggered ({giver} has a new one)",
                event="rotation-triggered",
                giver=self.giver,
            )
        else:
            self.log.info(
                "Certificate rotation triggered ({share:.0%} lifetime reached)",
                event="rotation-triggered",
                share=share,
            )

    def issued(self, svid: X509Svid, *, first: bool) -> None:
        """There is a certificate that our peers would take, and it is about to be used."""
        if not self.announces:
            return
        validity = svid.validity
        self.log.info(
            "{title}:\n  Serial: {serial}\n  Issuer: {issuer}\n  Subject: {subject}\n  SAN URI: {spiffe_id}\n"
            "  Valid: {not_before} to {not_after}\n  Expires in: {expires_in}",
            event="certificate-issued",
            title="Certificate issued" if first else "New certificate issued",
            serial=serial_pairs(svid.leaf.serial_number),
            issuer=svid.leaf.issuer.rfc4514_string(),
            subject=subject_of(svid.leaf),
            spiffe_id=str(svid.spiffe_id),
            not_before=rfc3339(validity.not_before),
            not_after=rfc3339(validity.not_after),
            expires_in=spoken_duration(validity.not_after - self.now()),
        )
        if not first:
            self.log.info("Hot-swapping certificate...", event="hot-swap")

    def complete(self, svid: X509Svid, connections: int, next_rotation: datetime) -> None:
        """A certificate has taken the place of another; so many connections go on under that one."""
        if self.announces:
            self.log.info(
                "Active connections: {connections} (will use new cert for new connections)\n"
                "Certificate rotation complete.\n"
                "Next rotation: {next_rotation}",
                event="rotation-complete",
                connections=connections,
                serial=serial_pairs(svid.leaf.serial_number),
                next_rotation=rfc3339(next_rotation),
            )

    def failed(
        self, error: PkiError, pause: timedelta, left: timedelta | None, *, is_loud: bool
    ) -> None:
        """There is no certificate, for now: ``left`` is what is left of the one before, if there is one."""
        (self.log.warn if is_loud else self.log.debug)(
            "No certificate from {giver} at {ca}: {reasons}; trying again in {pause:.1f} s{meanwhile}",
            event="renewal-failed",
            giver=self.giver,
            ca=self.where,
            codes=codes(error.problems),
            reasons=reasons(error.problems),
            pause=pause.total_seconds(),
            meanwhile=""
            if left is None or left.total_seconds() <= 0
            else f" (ours is good for {spoken_duration(left)} more)",
        )

    def expired(self) -> None:
        """There is no certificate any more."""
        self.log.error(
            "Our certificate has expired and could not be renewed: new connections are refused until {giver} at {ca} "
            "answers again",
            event="identity-expired",
            giver=self.giver,
            ca=self.where,
        )

    def taken_away(self, error: PkiError) -> None:
        """There is no certificate any more, though the last one has not ended."""
        self.log.error(
            "Our certificate was taken away by {giver} at {ca}: {reasons}; connections are refused until there is "
            "another",
            event="identity-taken-away",
            giver=self.giver,
            ca=self.where,
            codes=codes(error.problems),
            reasons=reasons(error.problems),
        )

    def path_switched(self, path: Sequence[x509.Certificate]) -> None:
        """The same certificate is served by another way to a root from now on."""
        self.log.info(
            "Our certificate is served by another way now, as {giver} at {ca} says: it leads to {root}",
            event="path-switched",
            giver=self.giver,
            ca=self.where,
            serial=serial_pairs(path[0].serial_number),
            root=f"{subject_of(path[-1])} ({Fingerprint.of(path[-1])})",
        )

    def path_refused(self, svid: X509Svid, error: PkiError) -> None:
        """What is told to be served above our certificate is not."""
        self.log.error(
            "The way above our certificate that {giver} at {ca} tells is not served, and the present one stays: "
            "{reasons}",
            event="path-refused",
            giver=self.giver,
            ca=self.where,
            serial=serial_pairs(svid.leaf.serial_number),
            codes=codes(error.problems),
            reasons=reasons(error.problems),
        )

    def recovered(self) -> None:
        """The troubles are over."""
        self.log.info(
            "{Giver} at {ca} answers again: the certificate is fresh, and new connections are accepted",
            event="identity-recovered",
            Giver=self.giver[:1].upper() + self.giver[1:],
            ca=self.where,
        )
