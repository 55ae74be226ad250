"""A workload with py-spiffe, as a process of its own: ``python py_spiffe_peer.py SOCKET ROTATIONS``.

It says in lines of JSON what each call gave; it ends once it has seen so many rotations, and then its identity go.
"""

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from spiffe import WorkloadApiClient, X509Source


def main(address: str, rotations: int) -> None:
    client = WorkloadApiClient(address)

    def say(name: str, call: Callable[[], Any]) -> None:
        try:
            print(json.dumps({name: call()}), flush=True)
        except Exception as error:
            print(json.dumps({name: f"error: {error}"}), flush=True)

    say("svid", lambda: str(client.fetch_x509_svid().spiffe_id))
    say("svids", lambda: [str(s.spiffe_id) for s in client.fetch_x509_svids()])
    say("context", lambda: str(client.fetch_x509_context().default_svid.spiffe_id))
    say("bundles", lambda: _domains(client.fetch_x509_bundles()))
    say("jwt", lambda: str(client.fetch_jwt_svid(audience={"web"}).spiffe_id))
    say("jwt_bundles", lambda: _domains(client.fetch_jwt_bundles()))
    token = client.fetch_jwt_svid(audience={"web"}).token
    say("valid", lambda: str(client.validate_jwt_svid(token, "web").spiffe_id))
    say("invalid", lambda: str(client.validate_jwt_svid(token, "db").spiffe_id))
    source = X509Source(socket_path=address)
    seen: set[int] = set()
    enough = threading.Event()

    def look() -> None:
        seen.add(source.get_x509_context().default_svid.leaf.serial_number)
        if len(seen) > rotations:
            enough.set()

    source.subscribe_for_updates(look)
    look()
    print(json.dumps({"watching": True}), flush=True)
    enough.wait(30)
    print(json.dumps({"rotations": len(seen) - 1}), flush=True)
    source.close()

    def until_it_is_denied() -> None:
        while True:
            client.fetch_x509_svid()

    say("denied", until_it_is_denied)
    client.close()


def _domains(found: Any) -> list[str]:
    return sorted(str(bundle.trust_domain.name) for bundle in found.bundles)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
