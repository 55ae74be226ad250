"""The CA's socket, as Python's own HTTP client speaks to it."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.running import PATIENCE


class CaSocket(http.client.HTTPConnection):
    """HTTP on a unix socket, on one connection."""

    def __init__(self, path: Path, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def post(self, path: str, body: object) -> Any:
        """What the CA answers to a request that it grants."""
        self.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text)
