"""What the log is told of one carried connection."""

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from pki.errors import PkiError, printable
from twisted_mesh.limits.rate_limit import LimitedLog
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.tls.spoken_address import spoken_address


@frozen(eq=False)
class LinkLog:
    """Of a connection that ``listener`` has taken; ``who`` is its far side, ``address`` where its caller is."""

    listener: Listener
    log: Logger
    warnings: LimitedLog

    def carried(self, who: str, address: object) -> None:
        """The target is there."""
        self.log.info(
            "{listener}: connection from {address} ({who}) is carried to {target}",
            event="proxy-opened",
            listener=self.listener.name,
            address=spoken_place(address),
            who=who,
            target=str(self.listener.target),
        )

    def not_carried(self, who: str, address: object, error: PkiError, event: str) -> None:
        """The target is not there, or has refused us."""
        self.warnings.warn(
            "{listener}: connection from {address} ({who}) is not carried to {target}: {reason}",
            event=event,
            listener=self.listener.name,
            address=spoken_place(address),
            who=who,
            target=str(self.listener.target),
            reason=printable(str(error), 1000),
            code=error.problems[0].code,
        )

    def ended(  # noqa: PLR0917
        self, who: str, address: object, reason: str, age: float, there: int, back: int
    ) -> None:
        """After so many seconds, with so many bytes to the target and back."""
        self.log.info(
            "{listener}: connection from {address} ({who}) has ended after {seconds} s ({reason}): {there} bytes "
            "to {target}, {back} from it",
            event="proxy-closed",
            listener=self.listener.name,
            address=spoken_place(address),
            who=who,
            seconds=round(age, 1),
            reason=reason,
            there=there,
            back=back,
            target=str(self.listener.target),
        )


def spoken_place(address: object) -> str:
    """Where a caller is, in words."""
    return "a local process" if isinstance(address, UNIXAddress) else spoken_address(address)
