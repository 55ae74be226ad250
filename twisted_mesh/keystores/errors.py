"""Why a key that is elsewhere does not sign."""

from pki.codes import Code
from pki.errors import PkiError


class KeyStoreAway(PkiError):
    """The store does not answer, and may later (HTTP 503): it says what was tried, and what to do."""

    code = Code.KEY_STORE_AWAY


class KeyStoreRefused(PkiError):
    """The store says no, and would again: it says why, and what to do."""

    code = Code.KEY_STORE_REFUSED


class RefusedByRule(KeyStoreRefused):
    """The store signs, and not this: what our own caller wants is against a rule of its own (HTTP 403)."""
