"""Tokens: found among the slots of a module by a URI, and told of where that one is not there."""

from collections.abc import Iterator

from pkcs11 import Slot, Token, TokenFlag, exceptions

from pki.errors import printable
from pki.keys.pkcs11_uri import Pkcs11Uri
from twisted_mesh.pkcs11.failures import TokenAbsent, TokenRefused
from twisted_mesh.pkcs11.functions import Library

#: As many are named where the right one is missing.
_MOST = 8


def find_token(library: Library, uri: Pkcs11Uri) -> Token:
    """The one token of that URI. Raises :class:`TokenAbsent`, and :class:`TokenRefused` where it is not one."""
    there = [token for token in _tokens(library)]
    found = [token for token in there if _is(token, token.slot, library, uri)]
    if len(found) == 1:
        return found[0]
    if found:
        raise TokenRefused(
            f"{len(found)} tokens are {uri.token_only}: name its serial= too, one of "
            f"{', '.join(serial_of(token) for token in found[:_MOST])}"
        )
    if not there:
        raise TokenAbsent(
            f"there is no token in any slot, and so no {uri.token_only}: put it in, or make it; and see whether the "
            "module's own configuration is found here"
        )
    names = ", ".join(described(token) for token in there[:_MOST])
    raise TokenAbsent(
        f"there is no token {uri.token_only}: there is {names}; put it in, or name another"
    )


def described(token: Token) -> str:
    """For people: label and serial."""
    return f"{printable(token.label, 32)!r} (serial {serial_of(token)})"


def serial_of(token: Token) -> str:
    """As URIs have it."""
    return printable(token.serial.decode("utf-8", "replace").rstrip("\0 "), 32)


def _tokens(library: Library) -> Iterator[Token]:
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (exceptions.PKCS11Error, UnicodeDecodeError):
            continue  # another's token that does not work is no reason why ours should not
        if TokenFlag.TOKEN_INITIALIZED in token.flags:
            yield token


def _is(token: Token, slot: Slot, library: Library, uri: Pkcs11Uri) -> bool:
    asked = (
        (uri.token, token.label),
        (uri.serial, serial_of(token)),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.slot_manufacturer, slot.manufacturer_id),
        (uri.slot_description, slot.slot_description),
        (uri.library_manufacturer, library.manufacturer_id),
        (uri.library_description, library.library_description),
    )
    return (
        all(_same(name, there) for name, there in asked if name is not None)
        and uri.slot_id in (None, slot.slot_id)
        and uri.library_version in (None, library.library_version)
    )


def _same(asked: str, there: str) -> bool:
    """Fields are filled up with blanks."""
    return asked.rstrip(" ") == there.rstrip("\0 ")
