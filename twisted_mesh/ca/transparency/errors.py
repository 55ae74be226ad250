"""Why there are not enough receipts for a certificate."""

from pki.codes import Code
from pki.errors import Malformed
from twisted_mesh.limits.rate_limit import TryLater


class LogsAway(TryLater):
    """Fewer logs answer than are wanted (HTTP 503 with Retry-After): nothing is issued meanwhile."""

    code = Code.LOG_AWAY


class BadQuorum(Malformed):
    """So many SCTs cannot be had, or are not enough for endpoints that have said how many they want."""
