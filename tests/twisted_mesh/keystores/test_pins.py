"""PINs: read where they were said to be, anew each time, and never shown."""

import os
from pathlib import Path

import pytest

from pki.errors import PkiError
from twisted_mesh.keystores.pins import CREDENTIAL, Pins


def filed(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_nothing_named_is_no_pin(tmp_path: Path) -> None:
    assert Pins(credentials=str(tmp_path)).pin() is None


def test_the_options_are_for_every_uri_that_names_no_source(tmp_path: Path) -> None:
    pins = Pins(filed(tmp_path / "pin", "1234\n"))
    assert pins.pin() == b"1234"
    filed(tmp_path / "pin", "5678\n")
    assert pins.pin() == b"5678", "a PIN that was wrong is put right in its file"
    assert pins.pin(f"file:{filed(tmp_path / 'other', '42')}") == b"42"


def test_a_descriptor_gives_it_once_and_it_is_remembered() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"1234\n")
    os.close(writing)
    pins = Pins()
    pins.take(reading)
    assert pins.pin() == pins.pin() == b"1234"
    with pytest.raises(OSError):
        os.fstat(reading)


def test_credentials_of_systemd(tmp_path: Path) -> None:
    filed(tmp_path / CREDENTIAL, "1234", 0o440)
    filed(tmp_path / "hsm", "5678", 0o440)
    pins = Pins(credentials=str(tmp_path))
    assert pins.pin() == b"1234"
    assert pins.pin("credential:hsm") == b"5678"


def test_a_percent_in_a_file_url_is_decoded(tmp_path: Path) -> None:
    filed(tmp_path / "a pin", "1234")
    for source in (f"file:{tmp_path}/a%20pin", f"file://{tmp_path}/a%20pin", f"{tmp_path}/a pin"):
        assert Pins().pin(source) == b"1234"


@pytest.mark.parametrize(
    "source, reason",
    [
        ("|/bin/echo 1234", "a program"),
        ("pin", "it is file:/PATH"),
        ("file:pin", "it is file:/PATH"),
        ("file://host/pin", "it is file:/PATH"),
        ("credential:", "the name of a credential"),
        ("credential:../pin", "the name of a credential"),
        ("file:/nowhere/pin", "cannot be read"),
    ],
)
def test_a_source_that_is_none_is_told(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PkiError, match=reason):
        Pins(credentials=str(tmp_path)).pin(source)


def test_a_credential_without_systemd_is_told() -> None:
    with pytest.raises(PkiError, match="LoadCredential="):
        Pins().pin("credential:hsm")


def test_a_pin_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="chmod 600") as caught:
        Pins(filed(tmp_path / "pin", "1234", 0o644)).pin()
    assert "1234" not in str(caught.value)
