"""``pki-inspect fingerprint``: what certificates and keys are compared and pinned by.

Nothing is imported here but click: the command loads cryptography when it runs, so ``--help`` is quick.
"""

import json
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.inspect_input import FORMAT, print_result, read, source_name
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE
from twisted_mesh.cli.stdout import say

if TYPE_CHECKING:
    from pki.inspect.key_holders import KeyHolder


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@FORMAT
def fingerprint(files: tuple[str, ...], format_: str) -> int:
    """Print what certificates and keys are compared and pinned by, both by SHA-256.

    FILE holds certificates, CSRs or keys in PEM or DER, or a SPIFFE bundle in JSON; - is standard
    input. Of a certificate it is the fingerprint of all of it, sha256:HEX, which is how the CA prints
    its root's and what --ca-fingerprint takes, and the pin of its public key, sha256/BASE64. A CSR or a
    key has the pin alone, which stays the same when the key is certified anew.

    \b
    Examples:
      pki-inspect fingerprint me/svid_bundle.pem
      pki-inspect fingerprint svid.pem svid_key.pem --format json
      curl -sk https://localhost:8443/api/v1/ca | pki-inspect fingerprint -
    """
    from pki.errors import PkiError
    from pki.inspect.key_holders import key_holders

    found: list[tuple[str, KeyHolder]] = []
    lost: list[str] = []
    for name in files:
        source = source_name(name)
        try:
            held, others = key_holders(read(name))
        except PkiError as error:
            lost.append(f"{source}: {error}")
            continue
        except Unusable as error:
            lost.append(error.message)
            continue
        found += ((source, holder) for holder in held)
        lost += (f"{source}: {why}" for why in others)
    if found:
        print_result(_json(found) if format_ == "json" else _text(found))
    for sentence in lost[:-1]:
        say("pki-inspect", sentence)
    if lost:
        raise Unusable(lost[-1])
    return DONE


def _text(found: "list[tuple[str, KeyHolder]]") -> str:
    from twisted_mesh.cli.inspect_output import aligned

    sections = []
    for source, holder in found:
        rows = (
            ("subject", [holder.subject]),
            ("fingerprint", [holder.fingerprint]),
            ("pin", [holder.pin]),
        )
        heading = f"{click.style(holder.what, bold=True)}  {source}"
        sections.append("\n".join((heading, *aligned([row for row in rows if row[1][0]], 11))))
    return "\n\n".join(sections)


def _json(found: "list[tuple[str, KeyHolder]]") -> str:
    return json.dumps(
        [
            {
                "source": source,
                "what": holder.what,
                "subject": holder.subject or None,
                "fingerprint": holder.fingerprint or None,
                "pin": holder.pin,
            }
            for source, holder in found
        ],
        indent=2,
    )
