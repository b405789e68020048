"""The contract tests can be pointed at a core that is not theirs: see core/README.md."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.core import CoreProcess

_ROOT = Path(__file__).parents[2]


def test_they_run_on_a_core_given_by_address(core_process: CoreProcess) -> None:
    secret = (core_process.home / "init_state" / "jwt_secret.txt").read_text()
    given = {
        "CONTRACT_CORE_ADDRESS": core_process.address,
        "CONTRACT_CORE_HOST_TOKEN": core_process.host_token,
        "CONTRACT_CORE_JWT_SECRET": secret,
    }
    files = [f"tests/contracts/core/test_{name}.py" for name in ("privileges", "limits")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *files],
        cwd=_ROOT,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    reasons = {line.rpartition(": ")[2] for line in done.stdout.splitlines() if "SKIPPED" in line}
    assert reasons == {"an improvement of this core"}
