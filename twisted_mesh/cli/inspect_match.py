"""``pki-inspect match``: whether a certificate, a CSR and a key belong together.

Nothing is imported here but click: the command loads cryptography when it runs, so ``--help`` is quick.
"""

import json
from typing import TYPE_CHECKING

import click

from twisted_mesh.cli.inspect_input import FORMAT, print_result, read, source_name
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED

if TYPE_CHECKING:
    from pki.inspect.key_holders import KeyHolder

    Found = tuple[str, KeyHolder]


@click.command()
@click.argument("files", metavar="CERT KEY|CSR...", nargs=-1, required=True)
@FORMAT
def match(files: tuple[str, ...], format_: str) -> int:
    """Say whether a certificate, a CSR and a key belong together: whether all are of one public key.

    Each file is in PEM or DER; - is standard input. Of a chain the first certificate counts. A key is
    private or public; of an encrypted one give the public half. Nothing of a private key is printed.

    Exit status: 0 they belong together; 1 they do not; 2 one of them cannot be read.

    \b
    Examples:
      pki-inspect match svid.pem svid_key.pem
      pki-inspect match svid.pem request.csr svid_key.pem --format json
      openssl pkey -in encrypted.key -pubout | pki-inspect match svid.pem -
    """
    found: list[Found] = []
    beside: list[Found] = []
    for name in files:
        first, others = _of_file(name)
        found += first
        beside += others
    if len(found) < 2:
        raise Unusable(
            f"{found[0][0]} holds a {found[0][1].what} alone: name what it is to be compared with too"
        )
    reference, *rest = found
    why = [_difference(one, reference, beside) for one in rest if not _is_same(one, reference)]
    shown = _json if format_ == "json" else _text
    print_result(shown(found, why))
    return REFUSED if why else DONE


def _of_file(name: str) -> "tuple[list[Found], list[Found]]":
    """The first of each kind in a file, and what else there is in it. Raises :class:`Unusable`."""
    from pki.errors import PkiError
    from pki.inspect.key_holders import key_holders

    source = source_name(name)
    try:
        held, lost = key_holders(read(name))
    except PkiError as error:
        raise Unusable(f"{source}: {error}") from None
    if lost:
        raise Unusable(f"{source}: {lost[0]}")
    first = {holder.what: holder for holder in reversed(held)}
    chosen = [(source, holder) for holder in held if first[holder.what] is holder]
    return chosen, [(source, holder) for holder in held if first[holder.what] is not holder]


def _is_same(one: "Found", other: "Found") -> bool:
    return one[1].has_key_of(other[1])


def _difference(one: "Found", reference: "Found", beside: "list[Found]") -> str:
    """In words, with whose key it is where something else in the files tells."""
    said = f"the {one[1].what} in {one[0]} is not of the key of the {reference[1].what} in {reference[0]}"
    for source, holder in beside:
        if _is_same((source, holder), one):
            return f"{said}, but of {holder.subject or holder.what}, which stands further down in {source}"
    return said


def _text(found: "list[Found]", why: list[str]) -> str:
    from twisted_mesh.cli.inspect_output import aligned, bad, good

    lines = []
    for source, holder in found:
        rows = [("subject", [holder.subject]), ("pin", [holder.pin])]
        heading = f"{click.style(holder.what, bold=True)}  {source}"
        lines += [heading, *aligned([row for row in rows if row[1][0]], 7), ""]
    if why:
        return "\n".join((*lines, f"verdict: {bad('they do not belong together')}", *why))
    return "\n".join((*lines, f"verdict: {good('they belong together')}"))


def _json(found: "list[Found]", why: list[str]) -> str:
    return json.dumps(
        {
            "verdict": "no match" if why else "match",
            "differences": why,
            "things": [
                {
                    "source": source,
                    "what": holder.what,
                    "subject": holder.subject or None,
                    "pin": holder.pin,
                }
                for source, holder in found
            ],
        },
        indent=2,
    )
