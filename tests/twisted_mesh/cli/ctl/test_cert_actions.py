"""Rows of certificates, as wide as the terminal."""

from datetime import timedelta

import pytest

from pki.validity import rfc3339
from twisted_mesh.api.messages import CertificateRow
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.cert_actions import put_rows
from twisted_mesh.runtime.clock import wall_clock

SERIAL = "7d4f50c5b6b10d42b1e8a30ed2e78ae7"
LONG = "spiffe://mesh.local/service/" + "very-" * 20 + "long"


def row(spiffe_id: str = LONG, status: str = "valid", left: float = 3599) -> CertificateRow:
    now = wall_clock()
    return CertificateRow(
        serial=SERIAL,
        subject="CN=a",
        spiffe_id=spiffe_id,
        issued_at=rfc3339(now),
        expires_at=rfc3339(now + timedelta(seconds=left)),
        status=status,
        revoked_at=None,
        reason=None,
        issuer="ab" * 20,
        key="cd" * 32,
        requester="unix:uid:0",
        entry="default",
    )


@pytest.mark.parametrize("width", [64, 80, 120, 159])
def test_a_certificate_is_one_line_of_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: width)
    put_rows([row(), row("spiffe://mesh.local/a", "revoked"), row(left=40 * 86400)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    for line in lines[1:]:
        assert line.startswith(SERIAL), "whole, and as a double click takes it"
    assert lines[1].endswith("very-long")
    assert " 59m " in lines[1]
    assert " - " in lines[2]
    assert " 39d " in lines[3]


@pytest.mark.parametrize("width", [None, 160, 300])
def test_where_there_is_room_all_is_told(
    width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: width)
    put_rows([row("spiffe://mesh.local/service/a")])
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["SERIAL", "SPIFFE", "ID", "STATUS", "ISSUED", "EXPIRES", "ENTRY"]
    assert line.startswith("7D:4F:50:")
    assert " spiffe://mesh.local/service/a " in line
