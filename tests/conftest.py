"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import EngineCommand, engine_home
from tests.support.rabbitmq import rabbitmq  # noqa: F401 - one server for the whole run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def engine() -> Iterator[EngineCommand]:
    """The `engine` command with an ENGINE_HOME of its own, taken down at the end."""
    with engine_home() as command:
        yield command


@pytest.fixture(scope="session")
def manifests() -> Path:
    """The folder of the example manifests."""
    return ROOT / "manifests"
