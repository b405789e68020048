"""A real embedded core in the test's own event loop."""

from tests.support.core import core  # noqa: F401
