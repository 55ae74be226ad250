"""The mesh that the workers of a module's tests belong to."""

from collections.abc import Iterator

import pytest

from tests.running import Mesh, mesh


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh(tmp_path_factory.mktemp("mesh")) as found:
        found.start_ca()
        yield found
