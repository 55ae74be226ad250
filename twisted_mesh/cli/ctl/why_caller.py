"""The caller that ``mesh-ctl why`` is about: what was seen of it, and what it asks for."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from attrs import frozen

from pki.errors import PkiError, Problem, Refused
from pki.issuing.csr import IssuanceRequest, build_csr, load_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.policy.entry import EntryMembers, read_entry
from pki.policy.selector import Selector
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.validity import parse_duration
from twisted_mesh.api.messages import SignRequest
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.cli.ctl.entry_actions import naming_options
from twisted_mesh.cli.program import Unusable
from twisted_mesh.http.json import parse_json
from twisted_mesh.state.directory import read_file

#: The most that the CA reads of a request.
_LARGEST = 64 * 1024


@frozen(repr=False)
class Asked:
    """What is asked for, before the CA's rules have looked at it."""

    csr: bytes
    requested_id: str
    ttl: timedelta | None
    token: str | None = None

    def judged(
        self, trust_domain: TrustDomain
    ) -> tuple[IssuanceRequest | None, tuple[Problem, ...]]:
        """The request, as far as it can be read, and every rule that it breaks whatever entries there are."""
        try:
            request = IssuanceRequest.parse(
                self.csr, self.requested_id, self.ttl, trust_domain=trust_domain
            )
        except Refused as error:
            try:
                spiffe_id = SpiffeId.parse(self.requested_id)
            except NotASpiffeId:
                return None, error.problems
            return _plain(spiffe_id, self.ttl), error.problems
        return request, ()


def saved_request(name: str) -> Asked:
    """A file with the body of a request to sign. Raises :class:`PkiError` where it is none."""
    if name == "-":
        data = sys.stdin.buffer.read(_LARGEST + 1) if sys.stdin is not None else b""
    else:
        data = read_file(Path(name), "--request")
    if len(data) > _LARGEST:
        raise Unusable(f"--request {name}: the CA reads at most {_LARGEST} bytes of a request")
    try:
        body = parse_json(data, SignRequest)
        csr = body.csr.encode("utf-8", "surrogatepass")
        load_csr(csr)
        ttl = None if body.ttl is None else parse_duration(body.ttl)
    except PkiError as error:
        raise Unusable(f"--request {name}: {error}") from None
    return Asked(csr, body.requested_id, ttl, body.token)


def made_up_request(
    spiffe_id: str, dns_names: Sequence[str], ip_addresses: Sequence[str], ttl: str | None
) -> Asked:
    """What an endpoint would send for that. Raises :class:`Unusable`."""
    with naming_options():
        wanted = SpiffeId.parse(spiffe_id)
        said = EntryMembers(
            selectors=["token:x"],
            spiffe_id="spiffe://x/x",
            dns_names=list(dns_names),
            ip_addresses=list(ip_addresses),
            ttl=ttl,
        )
        named = read_entry("asked", TrustDomain("x"), said)
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    return Asked(build_csr(key, wanted, named.dns_names, named.ip_addresses), spiffe_id, named.ttl)


def _plain(spiffe_id: SpiffeId, ttl: timedelta | None) -> IssuanceRequest:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    return IssuanceRequest(spiffe_id, key.public_key, (), (), ttl, "", "")


@frozen
class Seen:
    """What is proven of the caller, and who that is in words."""

    selectors: frozenset[Selector]
    of: str


def seen(pid: int | None, selectors: Sequence[str], *, has_token: bool, is_near: bool) -> Seen:
    """What the options say of the caller; nothing said means the process that runs this.

    ``is_near``: whether the CA is on this machine and sees its processes. Raises :class:`PkiError`.
    """
    declare_kinds()
    try:
        given = frozenset(map(Selector.parse, selectors))
    except PkiError as error:
        raise Unusable(f"--selector: {error}") from None
    if not is_near and (pid is not None or not (given or has_token)):
        raise Unusable(
            "a CA at https:// sees no processes of this machine: say what is proven with --selector, or name "
            "a --request with a join token"
        )
    if pid is None and (given or has_token):
        return Seen(given, "as given" if given else "of the token")
    pid = os.getpid() if pid is None else pid
    return Seen(given | _of_process(pid), f"of process {pid}{_in_container(pid)}")


def _in_container(pid: int) -> str:
    """What is not seen from here: who says it is asked by the CA or the agent."""
    from twisted_mesh.attest.process import container_of_process

    container = container_of_process(pid)
    if container is None:
        return ""
    pod = "" if container.pod_uid is None else f" of pod {container.pod_uid}"
    return f" in container {container.id[:12]}{pod}, whose runtime is not asked here: add what it says with --selector"


def _of_process(pid: int) -> frozenset[Selector]:
    from twisted_mesh.attest.process import selectors_of_process

    try:
        return frozenset(selectors_of_process(pid))
    except PkiError as error:
        raise Unusable(f"--pid {pid}: {error}") from None
