"""Alerts by HTTP: a POST of JSON, asked again until it is taken."""

import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
from attrs import define, field

from pki.codes import Code
from pki.errors import Malformed, PkiError
from twisted_mesh.http.https_client import HttpsClient, WebUrl
from twisted_mesh.interfaces import IReactor
from twisted_mesh.monitor.alert import Alert
from twisted_mesh.state.directory import read_trusted

#: Seconds for one POST, and bytes of its answer.
PATIENCE = 10.0
_LARGEST_ANSWER = 64 * 1024
#: Alerts of one POST.
AT_ONCE = 100
_LONGEST_FILE = 8 * 1024
_TAKEN = range(200, 300)
_HEADERS = {"content-type": "application/json", "user-agent": "twisted-mesh-ct-watch"}


class Untold(PkiError):
    """Somebody has not been told of alerts."""

    code = Code.UNREACHABLE


def webhook_url(text: str, option: str = "--webhook") -> WebUrl:
    """``https://HOST/PATH``, or ``http://`` on this machine. Raises :class:`Malformed`."""
    return WebUrl.parse(text, option)


def webhook_file(path: Path) -> tuple[WebUrl, str]:
    """The URL on the first line of a file, and on the second, if there is one, what Authorization says.

    Raises :class:`PkiError`.
    """
    text = read_trusted(path, "--webhook-file", _LONGEST_FILE).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= 2 or not all(line.isprintable() for line in lines):
        raise Malformed(
            f"--webhook-file {path}: one line with the URL, and a second one with the value of Authorization if the "
            "other side wants it"
        )
    return webhook_url(lines[0], "--webhook-file"), lines[1] if len(lines) == 2 else ""


@define(eq=False, repr=False)
class Webhook:
    """One place that is told. What is in its URL after the host may be a secret, and is said nowhere."""

    reactor: IReactor
    url: WebUrl
    authorization: str = ""
    name: str = field(init=False)
    at_once: int = field(default=AT_ONCE, init=False)
    _client: HttpsClient = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.name = f"webhook {self.url.origin}"
        self._client = HttpsClient(self.reactor, timeout=PATIENCE, who="webhook")

    async def tell(self, alerts: Sequence[tuple[int, Alert]]) -> None:
        """All of them in one POST. Raises :class:`PkiError`; what was told may then have been taken all the same."""
        told = [
            {"number": number, **msgspec.json.decode(alert.to_bytes())} for number, alert in alerts
        ]
        body = msgspec.json.encode({"monitor": socket.gethostname(), "alerts": told})
        headers = dict(_HEADERS)
        if self.authorization:
            headers["authorization"] = self.authorization
        try:
            answer = await self._client.ask(
                self.url, _LARGEST_ANSWER, method="POST", headers=headers, body=body
            )
        except PkiError as error:
            raise Untold(str(error).replace(str(self.url), self.url.origin)) from None
        if answer.status not in _TAKEN:
            raise Untold(
                f"{self.url.origin} answers {answer.status} to alerts: look whether the URL is right"
            )
