"""The core's fixtures."""

from tests.support.core import core, core_process  # noqa: F401
from tests.support.cores import places  # noqa: F401
