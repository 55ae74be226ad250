"""What an administrator's calls send: methods, paths and bodies as the API wants them."""

import asyncio
from typing import Any

import msgspec
import pytest
from attrs import define, field

from pki.svid.revocation_set import Reason
from tests.twisted_mesh.cli.ctl.registered import DEFAULT
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import (
    Deleted,
    KnownConnections,
    MadeToken,
    NewRegistration,
    NewToken,
    Registration,
    Registrations,
    RevokedMany,
    RevokedToken,
    TokenRows,
)

ID = "0011223344556677"


@define
class Client:
    """Remembers what it was asked, and answers one thing."""

    answer: Any
    asked: tuple[Any, ...] = ()
    date: None = field(default=None)

    async def ask(self, *asked: Any) -> Any:
        method, path, body, shape = asked
        self.asked = method, path, msgspec.to_builtins(body), shape
        return self.answer


def sent(call: str, *arguments: Any, answer: Any = None) -> tuple[Any, ...]:
    client: Any = Client(answer)
    asyncio.run(getattr(Administration(client), call)(*arguments))
    asked: tuple[Any, ...] = client.asked
    return asked


@pytest.mark.parametrize(
    ("call", "arguments", "asked"),
    [
        (
            "revoke_all",
            (("1a", "2b"), Reason.SUPERSEDED),
            (
                "POST",
                "/api/v1/revoke",
                {"serials": ["1a", "2b"], "reason": "superseded"},
                RevokedMany,
            ),
        ),
        ("connections", (), ("GET", "/api/v1/connections", None, KnownConnections)),
        ("registrations", (), ("GET", "/api/v1/entries", None, Registrations)),
        ("registration", ("file.web",), ("GET", "/api/v1/entries/file.web", None, Registration)),
        (
            "registration",
            ("a/../b?c",),
            ("GET", "/api/v1/entries/a%2F..%2Fb%3Fc", None, Registration),
        ),
        (
            "register",
            (NewRegistration(selectors=["unix:uid:1"], spiffe_id="spiffe://m/a"),),
            (
                "POST",
                "/api/v1/entries",
                {"selectors": ["unix:uid:1"], "spiffe_id": "spiffe://m/a"},
                Registration,
            ),
        ),
        ("delete_registration", (ID, ""), ("DELETE", f"/api/v1/entries/{ID}", None, Deleted)),
        (
            "delete_registration",
            (ID, "sold & gone"),
            ("DELETE", f"/api/v1/entries/{ID}?reason=sold+%26+gone", None, Deleted),
        ),
        (
            "create_token",
            (NewToken(entry=ID, ttl="1h", reason="R"),),
            ("POST", "/api/v1/tokens", {"entry": ID, "ttl": "1h", "reason": "R"}, MadeToken),
        ),
        (
            "revoke_token",
            ("0123456789ab", "é"),
            ("DELETE", "/api/v1/tokens/0123456789ab?reason=%C3%A9", None, RevokedToken),
        ),
    ],
)
def test_a_call_is_one_request(
    call: str, arguments: tuple[Any, ...], asked: tuple[Any, ...]
) -> None:
    assert sent(call, *arguments, answer=DEFAULT) == asked


def test_tokens_are_listed() -> None:
    assert sent("tokens", answer=TokenRows([])) == ("GET", "/api/v1/tokens", None, TokenRows)
