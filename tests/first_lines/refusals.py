"""Refusals between a client and a server: what the certificates, the clocks and the rules are to blame for."""

from pathlib import Path

from tests.first_lines.row import FirstLine
from tests.twisted_mesh.tls.wires import Conversation, End, converse
from twisted_mesh.tls.alerts import as_error


def of_server(conversation: Conversation) -> str:
    """What the server logs of the peer that it refuses."""
    (event,) = [e for e in conversation.server.log.events if e.get("event") == "peer-refused"]
    return str(event["reasons"])


def of_client(conversation: Conversation) -> str:
    """What the client's command says on stderr."""
    return str(as_error(conversation.client_error))


def no_certificate(directory: Path) -> str:
    return of_server(converse(End(False, None), End(True)))


ROWS = (
    FirstLine(
        "the caller has no certificate",
        "server",
        "the peer presented no certificate",
        r"present an SVID of this mesh: curl takes --cert and --key",
        no_certificate,
    ),
)
