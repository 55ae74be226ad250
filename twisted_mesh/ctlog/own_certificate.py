"""The log's own certificate: what its key is carried in, kept in a file that curl and others are given to believe."""

import ipaddress
from pathlib import Path

from cryptography import x509

from pki.errors import PkiError
from pki.keys import MemoryKey, spki_der
from pki.svid.x509svid import certificates_pem, load_certificates
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import read_file, write_whole
from twisted_mesh.tls.self_signed import SelfSigned

_NAMES = ("localhost", "127.0.0.1", "::1")


def own_certificate(path: Path, key: MemoryKey, host: str) -> SelfSigned:
    """The one in the file, where that is of this key and has that host; else a new one, in its place.

    Raises :class:`pki.errors.PkiError`.
    """
    names = [_name(name) for name in dict.fromkeys((*_NAMES, host)) if name]
    try:
        (kept,) = load_certificates(read_file(path, "the log's certificate"))
        found = kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if spki_der(kept.public_key()) == spki_der(key.public_key) and list(found) == names:
            return SelfSigned(key, kept)
    except (PkiError, ValueError, x509.ExtensionNotFound):
        pass  # there is none, or one that was made for something else
    made = SelfSigned.of(key, "mesh-ctlog", wall_clock(), names)
    write_whole(path, certificates_pem([made.certificate]), 0o644)
    return made


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
