"""``token``: what is asked of the CA, what is shown, and that a token is shown once."""

import asyncio
import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from pki.errors import PkiError
from pki.issuing.csr import build_csr
from pki.keys import key_id
from pki.policy.join_token import JoinToken
from tests.authorities import BACKEND, key
from tests.pki.issuing.odd_csrs import GRANTED, REFUSED
from tests.twisted_mesh.cli.ctl.registered import TIME, Ca, certificate, token_row
from twisted_mesh.api.messages import MadeToken, NewToken
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import joining, token_actions
from twisted_mesh.cli.ctl.joining import Joining
from twisted_mesh.cli.program import Unusable

WEB = "spiffe://mesh.local/service/web"


def understood(**options: Any) -> NewToken:
    nothing: dict[str, Any] = {
        "entry": None,
        "spiffe_id": None,
        "dns_names": (),
        "ip_addresses": (),
        "cert_ttl": None,
        "ttl": None,
        "key": None,
        "reason": "",
    }
    return token_actions.understood(**{**nothing, **options})


def created(
    capsys: pytest.CaptureFixture[str], new: NewToken, *, as_json: bool = False
) -> tuple[str, str]:
    work: Any = token_actions.Creating(new, as_json)
    assert asyncio.run(work(Ca())) == 0
    said = capsys.readouterr()
    return said.out, said.err


def joining_line(shown: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if "--join-token" in line]
    assert line.startswith("  ")
    return shlex.split(line)


def test_one_line_has_all_that_a_new_machine_needs(capsys: pytest.CaptureFixture[str]) -> None:
    shown, said = created(capsys, understood(spiffe_id=WEB))
    assert said == ""
    assert joining_line(shown) == [
        *("mesh-server", "--spiffe-id", WEB),
        *("--ca-url", "https://ca.example:8443", "--ca-fingerprint", "sha256:" + "ab" * 32),
        *("--join-token", "mj1_secret"),
    ]
    assert shown.count("mj1_secret") == 1
    assert "token  0123456789ab\n" in shown
    assert f"one certificate of {WEB}" in shown
    assert "2026-11-23T10:00:00Z" in shown


def test_the_line_asks_for_the_names_that_are_bought(capsys: pytest.CaptureFixture[str]) -> None:
    new = understood(
        spiffe_id="spiffe://td.example/service/web",
        dns_names=("www.example", "localhost"),
        ip_addresses=("192.0.2.1",),
    )
    line = joining_line(created(capsys, new)[0])
    assert line[1:3] == ["--trust-domain", "td.example"]
    assert [line[n + 1] for n, word in enumerate(line) if word == "--dns"] == ["localhost", "www.example"]  # fmt: skip
    assert [line[n + 1] for n, word in enumerate(line) if word == "--ip"] == ["127.0.0.1", "192.0.2.1"]  # fmt: skip


def joined(ca_url: str, **options: Any) -> Joining:
    made = MadeToken("mj1_secret", "01" * 6, "e", WEB, ca_url, "sha256:" + "ab" * 32, TIME)
    return Joining.of(made, understood(spiffe_id=WEB, **options))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_where_only_this_machine_reaches_the_ca_the_line_is_for_here(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setattr(joining, "_USUAL_PORT", taken.getsockname()[1])
        here = joined(f"https://{host}:8443")
        program, listen, port, *_ = here.line()
    assert Path(program).name == "mesh-server"
    assert Path(program).is_file(), "where it is installed"
    assert (listen, int(port) > joining._USUAL_PORT) == ("--listen", True), "that one is taken"
    assert here.call()[1:] == ["--server", f"https://localhost:{port}", "--server-id", WEB]
    assert "start mesh-ca with --listen :8443" in here.told()


def test_where_others_reach_the_ca_the_line_is_for_anywhere() -> None:
    there = joined("https://ca.example:8443", dns_names=("www.example",))
    assert there.line()[0] == "mesh-server"
    assert "--listen" not in there.line()
    assert there.call()[:3] == ["mesh-client", "--server", "https://www.example:9443"]
    assert "--public-url" not in there.told()


def test_an_entry_that_buys_many_ids_leaves_the_name_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown, _ = created(capsys, understood(entry="e1"))
    assert "with a name in place of NAME" in shown
    assert "spiffe://mesh.local/service/NAME" in joining_line(shown)


def test_a_token_for_one_key_is_not_for_a_server_that_makes_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown, _ = created(capsys, understood(spiffe_id=WEB, key="AB" * 32))
    assert joining_line(shown)[0] == "--ca-url"
    assert "Only a certificate request with the key " + "ab" * 32 in shown


def test_programs_get_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown, said = created(capsys, understood(spiffe_id=WEB), as_json=True)
    told = json.loads(shown)
    assert set(told) == {"token", "id", "entry", "spiffe_id", "ca_url", "fingerprint", "expires_at"}
    assert said == ""


def test_the_options_are_asked_for_as_the_api_names_them() -> None:
    ca = Ca()
    new = understood(
        spiffe_id=WEB,
        dns_names=("a.example",),
        ip_addresses=("::1",),
        cert_ttl="1h",
        ttl="1d",
        key="sha256:" + "0A" * 32,
        reason="ticket 4711",
    )
    work: Any = token_actions.Creating(new, True)
    asyncio.run(work(ca))
    expected = NewToken(None, WEB, ["a.example"], ["::1"], "1h", "1d", "0a" * 32, "ticket 4711")
    assert ca.acts == [expected]


def test_the_key_of_a_csr_is_found(tmp_path: Path) -> None:
    path = tmp_path / "web.csr"
    path.write_bytes(build_csr(key(), BACKEND))
    assert token_actions.key_of(str(path)) == key_id(key().public_key)
    path.write_bytes(GRANTED["no attributes"].der())
    assert token_actions.key_of(str(path)) == key_id(key().public_key)
    path.write_bytes(REFUSED["a byte after its end"][0]().der())
    with pytest.raises(PkiError, match="the CSR has 1 byte after its end"):
        token_actions.key_of(str(path))


def test_a_token_is_named_by_its_id_or_its_text() -> None:
    token = JoinToken.generate()
    assert token_actions.id_of(token.id) == token.id
    assert token_actions.id_of(token.text) == token.id
    for damaged in (token.text[:-1], token.text.upper(), token.id[:-1], ""):
        with pytest.raises(Unusable) as refusal:
            token_actions.id_of(damaged)
        assert token.text[4:12] not in refusal.value.message


def test_tokens_are_listed_by_their_ids(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        token_row("0123456789ab", "e1"),
        token_row("ba9876543210", "e2", "spent", serial="0a0b"),
    ]
    work: Any = token_actions.Listing(False)
    assert asyncio.run(work(Ca(rows=rows))) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["TOKEN", "SPIFFE", "ID", "STATUS", "CREATED", "EXPIRES", "ENTRY", "BOUGHT"]  # fmt: skip
    assert first.split() == ["0123456789ab", WEB, "live", *["2026-11-23T10:00:00Z"] * 2, "e1", "-"]
    assert second.split()[-2:] == ["e2", "0A:0B"]
    as_json: Any = token_actions.Listing(True)
    asyncio.run(as_json(Ca(rows=rows)))
    assert [row["status"] for row in json.loads(capsys.readouterr().out)] == ["live", "spent"]
    assert asyncio.run(work(Ca())) == 0
    assert capsys.readouterr().err == "mesh-ctl: there are no tokens\n"


def revoking(ca: Ca, token: str = "0123456789ab", *, yes: bool = True) -> int:
    work: Any = token_actions.Revoking(token, "leaked", yes, False)
    status: int = asyncio.run(work(ca))
    return status


def test_a_token_is_revoked_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca(rows=[token_row("0123456789ab", "e1")])
    assert revoking(ca) == 0
    assert ca.acts == [("revoke", "0123456789ab", "leaked")]
    said = capsys.readouterr()
    assert said.out == "token 0123456789ab revoked at 2026-11-23T10:00:00Z\n"
    assert said.err == ""


def test_whoever_revokes_a_spent_token_is_told_what_it_bought(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert revoking(Ca(rows=[token_row("0123456789ab", "e1", "spent", serial="0a0b")])) == 0
    said = capsys.readouterr().err
    assert "the certificate 0A:0B, which stays" in said
    assert "mesh-ctl entry delete e1" in said


def test_nothing_is_revoked_without_a_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        token_actions, "confirmed", lambda question, yes: asked.append(question) or yes
    )
    ca = Ca(rows=[token_row("0123456789ab", "e1")])
    assert revoking(ca, yes=False) == 1
    assert asked == [f"Revoke the token 0123456789ab for {WEB} (live), for good?"]
    assert not ca.acts
    assert capsys.readouterr().err == "mesh-ctl: nothing was revoked\n"


def test_an_unknown_token_is_for_the_ca_to_refuse() -> None:
    with pytest.raises(CaRefused):
        revoking(Ca(certificates=[certificate(1, "/service/web", None)]), yes=False)
