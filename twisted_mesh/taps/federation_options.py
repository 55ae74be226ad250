"""``--federation`` and what goes with it: where other trust domains find our bundle, and how that proves itself."""

from datetime import timedelta
from pathlib import Path

from attrs import frozen

from pki.errors import Malformed, discreet
from pki.svid.federation import Profile
from pki.svid.refresh import Refresh
from pki.validity import format_duration, parse_duration

_UNIX = "unix:"
#: What followers of ours keep to, whatever the hint says.
_FOLLOWED = Refresh()


@frozen
class FederationOptions:
    """Where the bundle is served."""

    address: str
    """A TCP address; or ``unix:PATH`` with ``https_web``, for a web server in front."""
    profile: Profile
    certificate: Path | None = None
    """Of the web's CAs, with ``https_web`` on a TCP address; then there is a key too."""
    key: Path | None = None

    @classmethod
    def parse(
        cls, address: str | None, profile: str | None, certificate: str | None, key: str | None
    ) -> "FederationOptions | None":
        """None where nothing is to be served. Raises :class:`Malformed`."""
        if address is None:
            if (profile, certificate, key) != (None, None, None):
                raise Malformed(
                    "--federation-profile, --federation-cert and --federation-key are for --federation: say where to "
                    "listen"
                )
            return None
        chosen = Profile.HTTPS_SPIFFE if profile is None else Profile.parse(profile)
        has_pair = certificate is not None and key is not None
        has_none = certificate is None and key is None
        if chosen is Profile.HTTPS_SPIFFE:
            if not has_none:
                raise Malformed(
                    "--federation-cert and --federation-key are for --federation-profile https_web: with https_spiffe "
                    "the CA shows its own SVID"
                )
            if address.startswith(_UNIX):
                raise Malformed(
                    "--federation unix:PATH is for a web server in front, which has no SVID of ours: give an address, "
                    "or --federation-profile https_web"
                )
            return cls(address, chosen)
        if address.startswith(_UNIX):
            if not has_none:
                raise Malformed(
                    "--federation unix:PATH is for a web server in front, which has the certificate: leave "
                    "--federation-cert and --federation-key out"
                )
            return cls(address, chosen)
        if certificate is None or key is None or not has_pair:
            raise Malformed(
                f"--federation {discreet(address, 80)} with https_web is TLS: give --federation-cert and "
                "--federation-key of a CA that the web trusts, or --federation unix:PATH for a web server in front"
            )
        return cls(address, chosen, Path(certificate), Path(key))


def refresh_hint(text: str) -> int:
    """``--refresh-hint``, in seconds. Raises :class:`Malformed`."""
    least, most = timedelta(seconds=_FOLLOWED.least), timedelta(seconds=_FOLLOWED.most)
    hint = parse_duration(text)
    if not least <= hint <= most:
        raise Malformed(
            f"--refresh-hint is at least {format_duration(least)} and at most {format_duration(most)}: whoever follows "
            "the bundle asks neither more often nor less"
        )
    return int(hint.total_seconds())
