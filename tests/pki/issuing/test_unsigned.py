"""Placeholders: they lay a certificate out and have nothing to sign it with."""

import pytest

from pki.issuing.unsigned import _EcPlaceholder, _RsaPlaceholder, algorithm_of, assemble
from pki.keys import KeyAlgorithm
from tests.authorities import der, key, mesh


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [(KeyAlgorithm.EC_P256, _EcPlaceholder), (KeyAlgorithm.RSA_2048, _RsaPlaceholder)],
)
def test_a_placeholder_has_no_secret_to_give(algorithm: KeyAlgorithm, kind: type) -> None:
    placeholder = kind(key("root", algorithm).public_key)
    assert placeholder.key_size == key("root", algorithm).public_key.key_size
    for give in (placeholder.private_numbers, placeholder.private_bytes):
        with pytest.raises(TypeError, match="no private key"):
            give()


def test_a_certificate_is_assembled_of_its_parts() -> None:
    cert = mesh().leaf()
    assert assemble(cert.tbs_certificate_bytes, algorithm_of(cert), cert.signature) == der(cert)
