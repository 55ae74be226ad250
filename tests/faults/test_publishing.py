"""The CA dies while it publishes: no number is served twice, and nothing that was answered is missing."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from attrs import define, field
from cryptography import x509

from tests.faults import dying
from tests.faults.ordeal import Ordeal, ordeal

SEED = 20261127

pytestmark = pytest.mark.slow


@define(eq=False)
class Reader:
    """Fetches the CRL again and again, from whoever lives."""

    under: Ordeal
    served: dict[int, bytes] = field(factory=dict)
    """What was served under each number."""
    doubles: list[int] = field(factory=list)
    steps_back: list[tuple[int, int]] = field(factory=list)
    last: int = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._read, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)

    def _read(self, stop: threading.Event) -> None:
        while not stop.wait(0.005):
            with suppress(OSError, EOFError, x509.ExtensionNotFound):
                self.fetch()

    def fetch(self) -> x509.CertificateRevocationList | None:
        answer = self.under.ask("/api/v1/crl")
        if answer.status != 200:
            return None
        crl = x509.load_der_x509_crl(answer.body)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        if self.served.setdefault(number, answer.body) != answer.body:
            self.doubles.append(number)
        if number < self.last:
            self.steps_back.append((self.last, number))
        self.last = number
        return crl


def test_killed_while_it_publishes_it_goes_on_above_all_that_it_served(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    with ordeal(tmp_path / "home", SEED) as under:
        reader = Reader(under)
        for step in draw.sample(dying.PUBLISHING, len(dying.PUBLISHING)):
            before = reader.last
            with reader.reading():
                under.dies_at(step, draw.randint(4, 12))
            assert reader.last > before, "it published in that life"
        ca = under.start(wait=True)
        crl = reader.fetch()
        assert crl is not None
        listed = {revoked.serial_number for revoked in crl}
        answered = {serial for caller in under.callers for serial in caller.revoked}
        under.lives_on(ca)
    assert (reader.doubles, reader.steps_back) == ([], [])
    assert len(reader.served) > len(dying.PUBLISHING)
    assert answered
    assert answered <= listed
    assert under.lost == []
