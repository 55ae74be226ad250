"""By which groups keys are exchanged: what a group is called, and that none but the hybrid ones are taken.

There are two locks. OpenSSL is told before the handshake, through pyOpenSSL's cffi layer, which groups to offer and to
take; and before a byte of an application passes it is asked which it was.
All private names of pyOpenSSL that this takes are used here and nowhere else; without them the second lock is the only
one, and where OpenSSL cannot tell the group either, nothing begins.
"""

from typing import Any

from OpenSSL import SSL

from pki.codes import Code
from pki.errors import PkiError, Problem
from twisted_mesh.tls.hybrid import HYBRID, NAMED, classical

_lib: Any = getattr(SSL, "_lib", None)


class NoHybridGroup(PkiError):
    """This process cannot insist on a hybrid key exchange, or cannot tell which it was."""

    code = Code.CLASSICAL_KEY_EXCHANGE


def insist(context: SSL.Context, *, is_only_lock: bool = False) -> None:
    """Have ``context`` offer and take hybrid groups alone. Raises :class:`NoHybridGroup`.

    ``is_only_lock``: nobody looks by :func:`objection` afterwards, so that it must succeed.
    """
    if not hasattr(SSL.Connection, "get_group_name") or not getattr(
        _lib, "SSL_get0_group_name", None
    ):
        raise NoHybridGroup(
            "--require-pq: this pyOpenSSL cannot tell by which group keys are exchanged: use 25.1 or later"
        )
    raw, told = getattr(context, "_context", None), getattr(_lib, "SSL_CTX_set1_curves_list", None)
    if told is None or raw is None:
        if is_only_lock:
            raise NoHybridGroup(
                "--require-pq: this pyOpenSSL does not let itself be told which groups to take: go back to 26.4"
            )
        from twisted_mesh.runtime.log import logger  # whoever only looks has no use for it

        logger("tls").warn(
            "pyOpenSSL's cffi layer has changed: a classical key exchange is refused at its end, and not by its offer",
            event="groups-unset",
        )
        return
    # One by one: of a list OpenSSL takes none if it does not know one of them; and where it is told to pass over those
    # that it does not know (?NAME), a list of which nothing is left means its own.
    known = [name for name in HYBRID if told(raw, name.encode()) == 1]
    is_told = bool(known) and told(raw, ":".join(known).encode()) == 1
    _lib.ERR_clear_error()
    if not is_told:
        raise NoHybridGroup(f"--require-pq: {version()} has none of {NAMED}: use one from 3.5 on")


def offer(context: SSL.Context, group: str) -> bool:
    """Have ``context`` offer that group alone; False where OpenSSL does not know it, or cannot be told."""
    raw, told = getattr(context, "_context", None), getattr(_lib, "SSL_CTX_set1_curves_list", None)
    is_told = told is not None and raw is not None and told(raw, group.encode("ascii")) == 1
    if not is_told and _lib is not None:
        _lib.ERR_clear_error()
    return is_told


def demand() -> None:
    """Raises :class:`NoHybridGroup` where this process could not :func:`insist`."""
    insist(SSL.Context(SSL.TLS_CLIENT_METHOD))


def version() -> str:
    """OpenSSL's, as it says it."""
    return SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace")


def group_of(connection: SSL.Connection) -> str:
    """The group that the two have agreed on, as OpenSSL spells it; nothing before that, or where it cannot tell."""
    return connection.get_group_name() or ""


def objection(connection: SSL.Connection) -> Problem | None:
    """Why nothing may pass over ``connection``; None where its keys were exchanged by a hybrid group."""
    return classical(group_of(connection))
