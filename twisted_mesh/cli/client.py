"""``bin/mesh-client``: the command line. Twisted is imported once the options are known to be good."""

from collections.abc import Sequence
from typing import Any

import click

from twisted_mesh.cli.program import CONTEXT, run_program, with_version

_EPILOG = """\b
Examples:
  mesh-client
  mesh-client /api/status --server https://localhost:9443 --format json
  mesh-client --repeat 100 --interval 100ms
  mesh-client --export ./me --follow --spiffe-id spiffe://mesh.local/service/me
  mesh-client --export ./me && curl --cacert me/svid_bundle.pem \\
      --cert me/svid.pem --key me/svid_key.pem https://localhost:9443/api/status
"""


@with_version
@click.command(epilog=_EPILOG, context_settings=CONTEXT)
@click.argument("path", default="/api/status")
@click.option("--server", default="https://localhost:9443", show_default=True, help="Whom to call.")
@click.option(
    "--server-id", help="Who may answer: a SPIFFE ID or pattern.  [default: …/service/api-server]"
)
@click.option("--spiffe-id", help="Who we are.  [default: …/service/payment-worker]")
@click.option("--trust-domain", help="Our trust domain.  [default: mesh.local; with --source its]")
@click.option(
    "--ca-url",
    help="unix:PATH, http://localhost:PORT or https://HOST:PORT.  [default: the state's socket]",
)
@click.option("--ca-file", help="The root certificate of a CA that is asked over https.")
@click.option(
    "--ca-fingerprint",
    metavar="sha256:HEX",
    help="In its place the root's fingerprint, as the CA prints it at its start.",
)
@click.option(
    "--ca-user",
    metavar="USER",
    help="Whose the CA at the socket is, if not root's, ours, or its directory's owner.",
)
@click.option(
    "--join-token",
    metavar="TOKEN",
    help="What mesh-ctl token create printed: buys the first certificate.",
)
@click.option(
    "--join-token-file",
    metavar="FILE",
    help="The same from a file of one line, which other users do not see; - is standard input.",
)
@click.option(
    "--attest",
    metavar="KIND[:FILE]",
    help="In their place evidence of the platform, shown to the CA alone; a kind is k8s, aws, gcp, azure, oidc or "
    "x509pop.",
)
@click.option(
    "--source",
    metavar="workload:unix:///PATH",
    help="The identity comes from that SPIFFE Workload API (SPIRE's, or mesh-agent's), and no CA is asked; workload: "
    "alone for the one in $SPIFFE_ENDPOINT_SOCKET.",
)
@click.option("--state-dir", help="Where state lives.  [default: $MESH_STATE_DIR, else the user's]")
@click.option(
    "--dns",
    metavar="NAME",
    multiple=True,
    help="A DNS name that our certificate carries; repeatable.  [default: none]",
)
@click.option(
    "--ip",
    metavar="ADDRESS",
    multiple=True,
    help="An IP address that it carries; repeatable.  [default: none]",
)
@click.option("--key", default="ec-p256", show_default=True, help="The kind of our key.")
@click.option("--ttl", help="How long our certificate lives.  [default: what the CA gives]")
@click.option(
    "--repeat",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many requests to make.",
)
@click.option(
    "--interval", default="1s", show_default=True, help="The pause between them, like 1s or 100ms."
)
@click.option(
    "--rotate-at", default="0.5", show_default=True, help="The share of its life at which to renew."
)
@click.option(
    "--revocation-max-age",
    metavar="DURATION",
    help="How old what is known of revocations may be.  [default: as old as our certificate gets]",
)
@click.option(
    "--on-stale",
    type=click.Choice(["fail-closed", "grace"]),
    default="fail-closed",
    show_default=True,
    help="Once it is older: refuse every server, or go on.",
)
@click.option("--timeout", default="10s", show_default=True, help="How long anything may take.")
@click.option(
    "--crl",
    metavar="PLACE",
    multiple=True,
    help="A CRL to heed, besides what the CA says: a file, or an http: or file: URL; repeatable.",
)
@click.option(
    "--crl-issuer",
    metavar="FILE",
    multiple=True,
    help="The certificate of a CA whose CRL may come, besides our own CAs'; repeatable.",
)
@click.option(
    "--ocsp",
    metavar="URL",
    help="Ask this http: URL about each server; aia: whom its certificate names.",
)
@click.option(
    "--ocsp-origin",
    metavar="ORIGIN",
    multiple=True,
    help="http://HOST:PORT that a certificate may name for --ocsp aia; repeatable.",
)
@click.option(
    "--require-staple",
    is_flag=True,
    help="Refuse a server that does not staple its CA's word that it is not revoked.",
)
@click.option(
    "--require-pq",
    is_flag=True,
    help="Exchange keys by hybrid groups alone (X25519MLKEM768 and such), which no quantum computer breaks.",
)
@click.option(
    "--require-sct",
    metavar="N",
    help="Believe no certificate without receipts (SCTs) of so many transparency logs, the CA's own neither.",
)
@click.option(
    "--ct-logs", metavar="FILE", help="The file that says which logs those are, with their keys."
)
@click.option(
    "--ct-logs-key",
    metavar="FILE|PIN",
    help="Who must have signed that file (FILE.sig): a key or certificate in PEM, or sha256/BASE64 of the key in "
    "FILE.pub.",
)
@click.option(
    "--ct-audit",
    type=click.Choice(["on", "off"]),
    help="Ask these logs, in the background, for the entries of whoever was met.  [default: on with --require-sct]",
)
@click.option(
    "--peer-pin",
    metavar="PATTERN=PIN,PIN",
    multiple=True,
    help="Such servers need one of these CA keys above them: sha256/BASE64, two at least, one a backup; repeatable.",
)
@click.option(
    "--peer-pin-mode",
    type=click.Choice(["report", "enforce"]),
    help="Who breaks pins is called all the same, and it is said; or refused.  [default: report]",
)
@click.option(
    "--peer-pin-until",
    metavar="TIME",
    help="From then on pins only report, like 2027-03-01T00:00:00Z: needed with enforce.",
)
@click.option(
    "--export",
    metavar="DIR",
    help="Publish our identity there: svid.pem, svid_key.pem, svid_bundle.pem.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Call nobody: keep what --export publishes fresh, with crl.pem beside it, until interrupted.",
)
@click.option(
    "--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def command(**options: Any) -> int:
    """Call a service over mutual TLS, and see who answers.

    A key is made here, the CA certifies it, and both sides prove who they are before anything is
    sent. Exit status: 0 answered, 1 refused, 2 unusable options, 3 nobody answered in time.
    """
    from twisted_mesh.cli.client_session import Session, run

    return run(Session.of(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program ``mesh-client``; returns its exit status."""
    return run_program("mesh-client", command, arguments)
