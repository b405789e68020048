"""Fixtures for pytest, which has to be installed. Import those that a test module wants."""

from collections.abc import Iterator

import pytest

from engine.testing.network import Network
from engine.testing.ports import LocalPort


@pytest.fixture
def world() -> Iterator[LocalPort]:
    """A world in memory."""
    with LocalPort() as port:
        yield port


@pytest.fixture
def network() -> Iterator[Network]:
    """Two users, `user0` and `user1`, on a real core."""
    with Network() as made:
        yield made
