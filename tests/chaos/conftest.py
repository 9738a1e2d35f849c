"""The short forms of the harnesses here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.checkpoints import BASES
from tests.chaos.lives import Nursery, nursery
from tests.chaos.world import stocked
from tests.e2e.conftest import backing

__all__ = ["backing", "services"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts services, and takes a while."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def services() -> Iterator[Nursery]:
    """Where services are started quickly, one at a time."""
    with nursery() as made:
        yield made


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints to serve, and to harm copies of."""
    return stocked(tmp_path_factory.mktemp("bases"), *BASES)
