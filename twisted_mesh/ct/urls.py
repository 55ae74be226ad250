"""Where a log is asked: what its entry in the list says, as URLs that questions are added to."""

from urllib.parse import urlsplit

from pki.ct.log_list import Log
from pki.errors import Malformed, printable
from twisted_mesh.http.https_client import WebUrl


def submission_url(log: Log) -> WebUrl:
    """Where certificates are submitted. Raises :class:`~pki.errors.Malformed`."""
    return WebUrl.parse(log.submission_url.rstrip("/"), "submission_url")


def monitoring_url(log: Log) -> WebUrl:
    """Where the log is read: over plain http too, where its entry says so, as what is read there is signed.

    Raises :class:`~pki.errors.Malformed`.
    """
    if not log.monitoring_url:
        raise Malformed(
            f"the log {printable(log.description, 80)} serves no tiles: it cannot be read here"
        )
    url = log.monitoring_url.rstrip("/")
    return WebUrl.parse(url, "monitoring_url", (urlsplit(url).hostname or "",))


def is_own_server(log: Log) -> bool:
    """Whether the log is read where it is submitted to: by the same server, so by its pinned key."""
    return monitoring_url(log).origin == submission_url(log).origin
