"""How an endpoint reaches its CA: the options that say so, made into a client."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from pki.errors import Malformed
from pki.policy.join_token import BadToken, JoinToken
from pki.spiffe import SpiffeId, SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import RootPin
from twisted_mesh.api.client import REQUEST_TIMEOUT, CaClient
from twisted_mesh.identity.ca_place import CaPlace
from twisted_mesh.identity.saved_svid import SavedSvid, identity_path
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.reading import named, read_whole
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

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
    requires_pq: bool = False,
    demand: "SctDemand | None" = None,
) -> CaClient:
    """The client for ``--ca-url`` and ``--ca-file`` or ``--ca-fingerprint``; without them, of the socket in the
    state directory.

    ``requires_pq``: over TLS keys are exchanged by hybrid groups alone. ``demand``: the CA's own certificate must have
    these receipts. Raises :class:`PkiError` where they cannot be used.
    """
    place = CaPlace.parse(
        ca_url, ca_file, state_dir, trust_domain, ca_fingerprint=ca_fingerprint, ca_user=ca_user
    )
    security = None
    if place.roots is not None:
        security = ca_security(reactor, place.roots, requires_pq=requires_pq, demand=demand)
    elif place.pin is not None:
        security = pinned_security(reactor, place.pin, requires_pq=requires_pq, demand=demand)
    return CaClient(reactor, place.address, security, timeout, place.user)


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


def ca_security(
    clock: IReactorTime,
    bundle: TrustBundle,
    *,
    requires_pq: bool = False,
    demand: "SctDemand | None" = None,
) -> Security:
    """Demands that whoever answers is ``/mesh/ca`` under that root: no workload can pose as the CA."""
    trust = evolve(_only_the_ca(bundle.trust_domain, demand), bundles=BundleSet.of(bundle))
    return _security(clock, Judge(wall_clock, trust), requires_pq)


def pinned_security(
    clock: IReactorTime,
    pin: RootPin,
    *,
    requires_pq: bool = False,
    demand: "SctDemand | None" = None,
) -> Security:
    """The same under a root of which the fingerprint is known, until it comes with the first handshake."""
    judge = PinnedJudge(wall_clock, _only_the_ca(pin.trust_domain, demand), pin=pin)
    return _security(clock, judge, requires_pq)


def _only_the_ca(trust_domain: TrustDomain, demand: "SctDemand | None") -> Trust:
    """Whoever has stolen an issuing key can mint that name too: it is exempt from nothing that is demanded."""
    allow = SpiffePattern.parse(str(trust_domain.member("mesh", "ca")))
    return Trust(allow=(allow,), demand=demand)


def _security(clock: IReactorTime, judge: Judge, requires_pq: bool) -> Security:
    contexts = ContextFactory(Role(serves=False, requires_pq=requires_pq))
    contexts.replace(None, judge.trust.bundles.all_roots)
    return Security(contexts, judge, clock, meets_ca=True)
