"""`engine status` has 0.3 seconds in all, and each heavy import would take a part of it."""

import os
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "asyncio",
    "engine.flows",
    "engine.hooks",
    "engine.loading",
    "grpc",
    "jsonschema",
    "omegaconf",
    "rich",
    "watchdog",
    "yaml",
}
SCRIPT = """
import sys
from engine.cli.main import main
main(sys.argv[1:])
print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["status", "-o", "json"], ["status"], ["call", "user0/ep"], ["users"], ["logs"]]
)
def test_questions_import_nothing_heavy(home, arguments):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"ENGINE_HOME": str(home.path)},
    )
    assert not HEAVY & set(done.stderr.splitlines())
