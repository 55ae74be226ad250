"""One answer of a Workload API, understood: which identity is ours, and whom it says to believe."""

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen
from cryptography import x509

from pki.der import elements, pem
from pki.errors import HOSTILE_INPUT, Malformed, PkiError, printable
from pki.keys import MemoryKey
from pki.pem import PRIVATE_KEY
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.x509svid import X509Svid, certificates_pem
from twisted_mesh.workload.chosen import Choice
from twisted_mesh.workload.messages import X509SvidMessage, X509SvidResponse


@frozen(eq=False)
class Context:
    """What go-spiffe calls an X509Context: our identity, and whom to believe; each trust domain kept apart."""

    svid: X509Svid
    bundles: BundleSet
    crls: Sequence[bytes] = ()
    """In DER, as they came."""
    problems: Sequence[PkiError] = field(default=())
    """What was passed over: bundles of other trust domains that are none."""


def read_context(message: bytes, choose: Choice) -> Context:
    """Raises :class:`PkiError` for what is no answer, has no identity for us, or none that can be used."""
    response = X509SvidResponse.parse(message)
    if not response.svids:
        raise Malformed("the answer of the Workload API has no SVID in it, and no refusal either")
    ids = [_id_of(svid) for svid in response.svids]
    place = choose(ids)
    svid = _svid(response.svids[place], ids[place])
    bundles, problems = _federated(response.federated_bundles)
    for spiffe_id, each in zip(ids, response.svids, strict=True):
        at = spiffe_id.trust_domain
        if at == svid.spiffe_id.trust_domain:
            continue
        try:
            bundles = bundles.with_bundle(read_bundle(at, each.bundle))
        except PkiError as error:
            problems = [*problems, error]
    # What came with our own identity counts for our own trust domain, whatever else is said of it.
    own = read_bundle(svid.spiffe_id.trust_domain, response.svids[place].bundle)
    return Context(svid, bundles.with_bundle(own), tuple(response.crl), tuple(problems))


def read_bundle(trust_domain: TrustDomain, data: bytes) -> TrustBundle:
    """Roots in DER, one after the other. Raises :class:`PkiError`."""
    what = f"the bundle of {trust_domain} from the Workload API"
    if not data:
        return TrustBundle(trust_domain, ())
    return TrustBundle.from_pem(trust_domain, certificates_pem(_certificates(data, what)), what)


def _federated(bundles: Mapping[str, bytes]) -> tuple[BundleSet, list[PkiError]]:
    found, problems = BundleSet(), list[PkiError]()
    for name, data in bundles.items():
        try:
            spiffe_id = SpiffeId.parse(name)
            if spiffe_id.path:
                raise Malformed(f"{spiffe_id} is a workload and has no bundle")
            found = found.with_bundle(read_bundle(spiffe_id.trust_domain, data))
        except PkiError as error:
            problems.append(error)
    return found, problems


def _id_of(svid: X509SvidMessage) -> SpiffeId:
    try:
        return SpiffeId.parse(svid.spiffe_id)
    except NotASpiffeId as error:
        raise Malformed(f"an SVID of the Workload API's has no SPIFFE ID: {error}") from None


def _svid(message: X509SvidMessage, spiffe_id: SpiffeId) -> X509Svid:
    chain = _certificates(message.x509_svid, f"the SVID of {spiffe_id} from the Workload API")
    key = MemoryKey.from_pem(pem(PRIVATE_KEY, message.x509_svid_key))
    svid = X509Svid.assemble(chain, key)
    if svid.spiffe_id != spiffe_id:
        raise Malformed(
            f"the Workload API calls {spiffe_id} what is a certificate of {svid.spiffe_id}"
        )
    return _without_root(svid)


def _without_root(svid: X509Svid) -> X509Svid:
    """Some servers send the root along, which a peer has or does not believe."""
    kept = tuple(cert for cert in svid.intermediates if cert.issuer != cert.subject)
    return svid if kept == svid.intermediates else evolve(svid, intermediates=kept)


def _certificates(data: bytes, what: str) -> list[x509.Certificate]:
    try:
        return [x509.load_der_x509_certificate(each.whole) for each in elements(data)]
    except Malformed as error:
        raise Malformed(f"{what}: {error}") from None
    except HOSTILE_INPUT as error:
        raise Malformed(
            f"{what} holds what is no certificate: {printable(str(error), 100)}"
        ) from None
