"""A client with py-spiffe, as a process of its own: ``python py_spiffe.py URL ID N``.

N requests to a server that proves ID, a connection and a context each, while rotations come ($ROTATIONS of them).
"""

import http.client
import json
import os
import ssl
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import X509Source
from spiffe.svid.x509_svid import X509Svid


def picked(svids: list[X509Svid]) -> X509Svid:
    wanted = os.environ.get("SPIFFE_ID")
    return next((svid for svid in svids if str(svid.spiffe_id) == wanted), svids[0])


def context_of(source: X509Source, svid: X509Svid, home: Path) -> ssl.SSLContext:
    """By files, since ``ssl`` takes a key from nowhere else."""
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    roots = b"".join(cert.public_bytes(Encoding.PEM) for cert in bundle.x509_authorities)
    chain = b"".join(cert.public_bytes(Encoding.PEM) for cert in svid.cert_chain)
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / "svid.pem").write_bytes(chain + key)
    context = ssl.create_default_context(cadata=roots.decode())
    context.check_hostname = False  # who answers is said by the SPIFFE ID
    context.load_cert_chain(home / "svid.pem")
    return context


def main(url: str, peer: str, least: int) -> None:
    rotations, server = int(os.environ.get("ROTATIONS", "0")), urlsplit(url)
    ours: set[int] = set()
    theirs: set[int] = set()
    asked, until = 0, time.monotonic() + 300
    with tempfile.TemporaryDirectory() as directory, X509Source(svid_picker=picked) as source:
        while asked < least or len(ours) <= rotations:
            assert time.monotonic() < until, f"{len(ours)} certificates in {asked} requests"
            svid = source.svid
            context = context_of(source, svid, Path(directory))
            connection = http.client.HTTPSConnection(
                str(server.hostname), server.port, context=context, timeout=20
            )
            connection.connect()
            shown = connection.sock.getpeercert(binary_form=True)
            leaf = x509.load_der_x509_certificate(shown)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [peer]
            connection.request("GET", server.path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, f"request {asked}: status {answer.status}"
            connection.close()
            ours.add(svid.leaf.serial_number)
            theirs.add(leaf.serial_number)
            asked += 1
    print(json.dumps({"asked": asked, "ours": len(ours), "theirs": len(theirs)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
