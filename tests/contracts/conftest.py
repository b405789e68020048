"""A core in a process of its own, for the tests of the tests."""

from tests.support.core import core_process  # noqa: F401
