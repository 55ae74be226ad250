"""Who has called, in headers for the program behind: Envoy's ``X-Forwarded-Client-Cert``, and a plain one of ours.

What a caller says of itself under these names, however spelt, never reaches that program.
"""

import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.svid.x509svid import spiffe_id_of
from twisted_mesh.proxy.http_message import Header, as_variable
from twisted_mesh.proxy.seam import Caller

CLIENT_CERT = b"X-Forwarded-Client-Cert"
CALLER = b"X-Mesh-Caller"
_OURS = {b"x-forwarded-client-cert", b"x-mesh-caller"}
_SPECIAL = re.compile(r'[,;="\\]')


def is_ours(name: bytes) -> bool:
    """Whether some program could take a header of that ``name`` for one of these."""
    return as_variable(name) in _OURS


def identity_headers(caller: Caller) -> tuple[Header, ...]:
    """What is said of ``caller``; nothing where it has proven nothing."""
    if caller.peer is None:
        return ()
    values = [("Hash", caller.peer.leaf.fingerprint(hashes.SHA256()).hex())]
    own = caller.tls.get_certificate() if caller.tls is not None else None
    if own is not None:
        values.insert(0, ("By", str(spiffe_id_of(own.to_cryptography()))))
    values.append(("Subject", _quoted(caller.peer.leaf.subject.rfc4514_string())))
    values.append(("URI", _plain(str(caller.peer.spiffe_id))))
    values += [("DNS", _plain(name)) for name in _dns_names(caller.peer.leaf)]
    said = ";".join(f"{key}={value}" for key, value in values)
    return (
        (CLIENT_CERT, said.encode("ascii", "backslashreplace")),
        (CALLER, str(caller.peer.spiffe_id).encode("ascii")),
    )


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _plain(value: str) -> str:
    return _quoted(value) if _SPECIAL.search(value) else value


def _quoted(value: str) -> str:
    r"""In quotes, in which a quote is written ``\"`` and nothing can end a line."""
    shown = "".join(char if char.isprintable() else "?" for char in value)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
