"""How an endpoint reaches its CA: the options that say so, made into a client."""

from functools import partial
from pathlib import Path
from typing import BinaryIO

from attrs import evolve

from pki.errors import Malformed, printable
from pki.policy.join_token import BadToken, JoinToken
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import Fingerprint, RootPin
from twisted_mesh.api.client import REQUEST_TIMEOUT, CaClient
from twisted_mesh.api.local_ca import CaUser
from twisted_mesh.http.address import CaAddress
from twisted_mesh.identity.exported import exported
from twisted_mesh.identity.saved_svid import SavedSvid, identity_path
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.reach import too_long
from twisted_mesh.state.directory import StateDirectory, StateError, read_file
from twisted_mesh.state.reading import named, read_whole
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.judge import Judge, PinnedJudge, Trust

#: Of a file that holds a token: more is read of none.
_LONGEST_LINE = 8 * 1024


def ca_client(
    reactor: IReactor,
    ca_url: str | None,
    ca_file: str | None,
    state_dir: Path,
    trust_domain: TrustDomain,
    *,
    ca_fingerprint: str | None = None,
    ca_user: str | None = None,
    timeout: float = REQUEST_TIMEOUT,
) -> CaClient:
    """The client for ``--ca-url`` and ``--ca-file`` or ``--ca-fingerprint``; without them, of the socket in the
    state directory.

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
    security = None
    if address.scheme != "https":
        for option, value in (("--ca-file", ca_file), ("--ca-fingerprint", ca_fingerprint)):
            if value is not None:
                raise Malformed(f"{option} is for a CA at https://, not at {address}")
    elif ca_file is not None:
        bundle = read_roots(trust_domain, Path(ca_file), "--ca-file")
        security = ca_security(reactor, bundle)
    elif ca_fingerprint is not None:
        pin = RootPin(Fingerprint.parse(ca_fingerprint), trust_domain)
        security = pinned_security(reactor, pin)
    else:
        raise Malformed(
            f"{address}: whose root to believe is not known: name it with --ca-fingerprint, which the CA prints at its "
            "start, mesh-ctl token create with each token, and openssl x509 -noout -fingerprint -sha256 of the root's "
            "file; or name that file with --ca-file"
        )
    return CaClient(reactor, address, security, timeout, user)


def join_token(
    text: str | None, file: str | None, stdin: BinaryIO | None = None
) -> JoinToken | None:
    """The token of ``--join-token`` or ``--join-token-file``; ``-`` is ``stdin`` where there is one.

    Raises :class:`PkiError`, which does not repeat the token.
    """
    if text is not None and file is not None:
        raise Malformed("--join-token and --join-token-file say the same thing: give one of them")
    if file is None:
        return None if text is None else JoinToken.parse(text)
    what = f"--join-token-file {named(Path(file), secret=True)}"
    try:
        return JoinToken.parse(_one_line(file, what, stdin))
    except BadToken as error:
        raise BadToken(f"{what}: {error}") from None


def _one_line(name: str, what: str, stdin: BinaryIO | None) -> str:
    if name == "-" and stdin is not None:
        try:
            data = stdin.readline(_LONGEST_LINE)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is closed"
            raise StateError(f"{what} cannot be read ({why})") from None
    else:
        try:
            data = read_whole(Path(name), _LONGEST_LINE)
        except OSError as error:
            raise StateError(f"{what} cannot be read ({error.strerror})") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise BadToken(
            "this is no whole join token (it is in UTF-16, as PowerShell's > writes it, or no text): save it as ASCII"
        )
    line = data.removeprefix(b"\xef\xbb\xbf").rstrip(b" \t\r\n")
    if not line:
        raise BadToken("this is no whole join token (there is nothing): write it on the first line")
    if line.startswith((b"\n", b"\r\n")):
        raise BadToken(
            "this is no whole join token (the first line is empty): write it on the first line"
        )
    if b"\n" in line or b"\r" in line:
        raise BadToken(
            f"this is no whole join token (there are {len(line.splitlines())} lines): one line with the token, and "
            "nothing else"
        )
    return line.decode("ascii", "replace")


def saved_svid(client: CaClient, state_dir: Path, spiffe_id: SpiffeId) -> SavedSvid:
    """What an endpoint keeps between two runs: nothing where the kernel tells the CA who it is."""
    if client.security is None:
        return SavedSvid(None)
    return SavedSvid(identity_path(state_dir, f"{client.address} {spiffe_id}"))


def administrator_client(
    reactor: IReactor,
    ca_url: str | None,
    ca_file: str | None,
    state_dir: Path,
    trust_domain: TrustDomain,
    *,
    ca_fingerprint: str | None = None,
    ca_user: str | None = None,
    svid: Path | None = None,
    timeout: float = REQUEST_TIMEOUT,
) -> CaClient:
    """The same for an administrator, who over https proves itself by the exported identity in ``svid``.

    Its trust domain is then the CA's, and its bundle says whose root to believe unless ``ca_file`` or
    ``ca_fingerprint`` does.
    """
    reach = partial(
        ca_client,
        reactor,
        ca_url,
        ca_fingerprint=ca_fingerprint,
        ca_user=ca_user,
        timeout=timeout,
    )
    if svid is None:
        return reach(ca_file, state_dir, trust_domain)
    if ca_url is None or CaAddress.parse(ca_url).scheme != "https":
        raise Malformed("--svid is for a CA at https://: name it with --ca-url")
    ours, bundle = exported(svid)
    if ca_file is None and ca_fingerprint is None:
        read_roots(ours.spiffe_id.trust_domain, bundle, "--svid")  # whose name the refusal then has
        ca_file = str(bundle)
    client = reach(ca_file, state_dir, ours.spiffe_id.trust_domain)
    client.present(ours, f"--svid {svid}")
    return client


def read_roots(trust_domain: TrustDomain, path: Path, option: str) -> TrustBundle:
    """The roots in a file. Raises :class:`PkiError`, which says what it is in place of that."""
    data = read_file(path, option)
    return TrustBundle.from_pem(trust_domain, data, f"{option} {printable(str(path), 400)}")


def ca_security(reactor: IReactor, bundle: TrustBundle) -> Security:
    """Demands that whoever answers is ``/mesh/ca`` under that root: no workload can pose as the CA."""
    trust = evolve(_only_the_ca(bundle.trust_domain), bundles=BundleSet.of(bundle))
    return _security(reactor, Judge(wall_clock, trust))


def pinned_security(reactor: IReactor, pin: RootPin) -> Security:
    """The same under a root of which the fingerprint is known, until it comes with the first handshake."""
    return _security(reactor, PinnedJudge(wall_clock, _only_the_ca(pin.trust_domain), pin=pin))


def _only_the_ca(trust_domain: TrustDomain) -> Trust:
    return Trust(allow=(SpiffePattern.parse(str(trust_domain.member("mesh", "ca"))),))


def _security(reactor: IReactor, judge: Judge) -> Security:
    contexts = ContextFactory(Role(serves=False))
    contexts.replace(None, judge.trust.bundles.all_roots)
    return Security(contexts, judge, reactor)
