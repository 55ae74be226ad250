"""Several services in one process, each with an identity, a feed and a port of its own; its log on standard output.

``python -m tests.bench.endpoint_crowd DIRECTORY CA_URL FINGERPRINT NAME...``: the join token of each is in
``DIRECTORY/NAME.token``. Once one listens its name and its port are told in a line.
"""

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import serverFromString
from twisted.logger import globalLogBeginner

from twisted_mesh import observe
from twisted_mesh.runtime.clock import steady
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.server import site

reactor: Any = _reactor
_log = logger("crowd")


def _endpoint(home: Path, url: str, fingerprint: str, name: str) -> str:
    words = {
        "interface": "127.0.0.1",
        "spiffe-id": f"spiffe://mesh.local/service/{name}",
        "state-dir": str(home / name),
        "ca-url": url,
        "ca-fingerprint": fingerprint,
        "join-token-file": str(home / f"{name}.token"),
        "allow": "spiffe://mesh.local/**",
    }
    told = ":".join(f"{word}={value.replace(':', chr(92) + ':')}" for word, value in words.items())
    return f"mesh:0:{told}"


async def _serve(home: Path, url: str, fingerprint: str, name: str) -> None:
    port = await serverFromString(reactor, _endpoint(home, url, fingerprint, name)).listen(
        site(reactor)
    )
    print(f"{name} listens at {port.getHost().port}", flush=True)


def main() -> None:
    home, url, fingerprint, *names = sys.argv[1:]
    steady(reactor)
    globalLogBeginner.beginLoggingTo([observe.TextObserver(sys.stdout)], redirectStandardIO=False)
    for name in names:
        reactor.callWhenRunning(
            lambda name=name: spawn(_serve(Path(home), url, fingerprint, name), "serving", _log)
        )
    reactor.run()


if __name__ == "__main__":
    main()
