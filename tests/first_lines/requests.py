"""CSRs that the CA refuses: the rule that is broken, and what to write in its place."""

from collections.abc import Callable
from pathlib import Path

from pki.der import pem
from pki.errors import PkiError
from pki.issuing.csr import IssuanceRequest
from pki.pem import REQUEST
from tests.authorities import BACKEND, MESH
from tests.first_lines.row import FirstLine
from tests.pki.issuing.odd_csrs import REFUSED

_KINDS = (
    "an address as DNS name",
    "capitals",
    "a dot at the end",
    "an underscore",
    "a wildcard",
    "an empty name",
    "a URI as DNS name",
    "Latin-1",
    "an address as text",
    "names twice",
    "a key of RSASSA-PSS",
    "a key of DSA",
    "SHA-1",
    "a byte after its end",
    "an open length",
)


def refused(kind: str) -> Callable[[Path], str]:
    def said(_: Path) -> str:
        csr = pem(REQUEST, REFUSED[kind][0]().der())
        try:
            IssuanceRequest.parse(csr, str(BACKEND), trust_domain=MESH)
        except PkiError as error:
            return str(error)
        return ""

    return said


def row(kind: str) -> FirstLine:
    cause, _, cure = REFUSED[kind][2].partition(".*")
    return FirstLine(f"a CSR with {kind}", "ca", cause, cure, refused(kind), never="damaged")


ROWS = tuple(map(row, _KINDS))
