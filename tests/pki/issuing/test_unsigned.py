"""Placeholders: they lay a certificate out and have nothing to sign it with."""

from copy import copy, deepcopy

import pytest

from pki.issuing.unsigned import algorithm_of, assemble, placeholder
from pki.keys import KeyAlgorithm
from tests.authorities import der, key, mesh


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_a_placeholder_has_no_secret_to_give(algorithm: KeyAlgorithm) -> None:
    public_key = key("root", algorithm).public_key
    stand_in = placeholder(algorithm.kind.private_class, public_key)
    assert stand_in.public_key() is public_key
    assert copy(stand_in) is deepcopy(stand_in) is stand_in
    secrets = [name for name in ("private_numbers", "private_bytes") if hasattr(stand_in, name)]
    assert "private_bytes" in secrets
    for name in secrets:
        with pytest.raises(TypeError, match="no private key"):
            getattr(stand_in, name)()


def test_a_certificate_is_assembled_of_its_parts() -> None:
    cert = mesh().leaf()
    assert assemble(cert.tbs_certificate_bytes, algorithm_of(cert), cert.signature) == der(cert)
