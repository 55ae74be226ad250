"""Where a CA is and whom to believe there: the options that say so, as one value. Imports neither Twisted nor TLS."""

from functools import partial
from pathlib import Path

from attrs import evolve, frozen

from pki.errors import Malformed, printable
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.x509svid import X509Svid
from twisted_mesh.api.ca_user import CaUser
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.exported import exported
from twisted_mesh.runtime.socket_path import too_long
from twisted_mesh.state.directory import StateDirectory, read_file


@frozen(eq=False, repr=False)
class CaPlace:
    """One CA: at ``https`` it has a root, or the pin of one."""

    address: CaAddress
    user: CaUser
    """Whose the process at a unix socket may be."""
    roots: TrustBundle | None = None
    pin: RootPin | None = None
    shown: X509Svid | None = None
    """What the caller proves itself by."""
    origin: str = ""
    """Where that was read, for people."""

    @classmethod
    def parse(
        cls,
        ca_url: str | None,
        ca_file: str | None,
        state_dir: Path,
        trust_domain: TrustDomain,
        *,
        ca_fingerprint: str | None = None,
        ca_user: str | None = None,
    ) -> "CaPlace":
        """What ``--ca-url`` and ``--ca-file`` or ``--ca-fingerprint`` say; without them, the socket in the state
        directory.

        Raises :class:`PkiError` where they cannot be used.
        """
        address = (
            CaAddress.parse(ca_url)
            if ca_url
            else CaAddress("unix", str(StateDirectory(state_dir).socket))
        )
        if ca_file is not None and ca_fingerprint is not None:
            raise Malformed("--ca-fingerprint and --ca-file say the same thing: give one of them")
        if not ca_url and (objection := too_long(Path(address.path))) is not None:
            raise Malformed(
                f"{printable(objection, 400)}: choose a shorter --state-dir, or name the CA's socket with --ca-url"
            )
        user = CaUser.parse(ca_user)
        if ca_user is not None and address.scheme != "unix":
            raise Malformed(f"--ca-user is for a CA at a unix socket, not at {address}")
        if address.scheme != "https":
            for option, value in (("--ca-file", ca_file), ("--ca-fingerprint", ca_fingerprint)):
                if value is not None:
                    raise Malformed(f"{option} is for a CA at https://, not at {address}")
            return cls(address, user)
        if ca_file is not None:
            return cls(address, user, read_roots(trust_domain, Path(ca_file), "--ca-file"))
        if ca_fingerprint is not None:
            pin = RootPin(Fingerprint.parse(ca_fingerprint), trust_domain)
            return cls(address, user, pin=pin)
        raise Malformed(
            f"{address}: whose root to believe is not known: name it with --ca-fingerprint, which the CA prints at its "
            "start, mesh-ctl token create with each token, and openssl x509 -noout -fingerprint -sha256 of the root's "
            "file; or name that file with --ca-file"
        )

    @classmethod
    def of_administrator(
        cls,
        ca_url: str | None,
        ca_file: str | None,
        state_dir: Path,
        trust_domain: TrustDomain,
        *,
        ca_fingerprint: str | None = None,
        ca_user: str | None = None,
        svid: Path | None = None,
    ) -> "CaPlace":
        """The same for an administrator, who over https proves itself by the exported identity in ``svid``.

        Its trust domain is then the CA's, and its bundle says whose root to believe unless ``ca_file`` or
        ``ca_fingerprint`` does.
        """
        parse = partial(cls.parse, ca_url, ca_fingerprint=ca_fingerprint, ca_user=ca_user)
        if svid is None:
            return parse(ca_file, state_dir, trust_domain)
        if ca_url is None or CaAddress.parse(ca_url).scheme != "https":
            raise Malformed("--svid is for a CA at https://: name it with --ca-url")
        ours, bundle = exported(svid)
        if ca_file is None and ca_fingerprint is None:
            # Whose name a refusal then has.
            read_roots(ours.spiffe_id.trust_domain, bundle, "--svid")
            ca_file = str(bundle)
        place = parse(ca_file, state_dir, ours.spiffe_id.trust_domain)
        return evolve(place, shown=ours, origin=f"--svid {svid}")


def read_roots(trust_domain: TrustDomain, path: Path, option: str) -> TrustBundle:
    """The roots in a file. Raises :class:`PkiError`, which says what it is in place of that."""
    data = read_file(path, option)
    return TrustBundle.from_pem(trust_domain, data, f"{option} {printable(str(path), 400)}")
