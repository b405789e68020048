"""Stock aiflows: its virtual environment, made once and kept, and a run of it beside ours."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.failure import BenchmarkError, tail
from tests.benchmarks.measures import IN_FLIGHT, Order

CODE = Path(__file__).parent / "stock"
ENVIRONMENT = Path(__file__).parents[2] / ".bench" / "stock-aiflows"
_AIFLOWS = "aiflows==1.1.1"
_NEEDED = (
    "colink==0.3.7",
    "hydra-core==1.3.2",
    "hydra-colorlog==1.1.0",
    "diskcache==5.6.1",
    "huggingface-hub==0.19.4",
    "jsonlines==3.1.0",
    "jinja2==3.1.2",
    "rich==12.6.0",
    "colorama==0.4.6",
    "termcolor==2.4.0",
    # The SDK imports pkg_resources, which newer ones have no more.
    "setuptools<81",
)
"""Those of aiflows' own requirements that it imports, in its versions; the others weigh 500 MB."""
_IMPORTS = "import aiflows.workers, aiflows.utils.serving, stock_flows"
_PATIENCE = 600.0


def prepare() -> Path:
    """Return the Python of the virtual environment with stock aiflows; make it if need be.

    Raises BenchmarkError when it cannot be made, or aiflows not be imported in it.
    """
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "installed"
    wanted = "\n".join([_AIFLOWS, *_NEEDED])
    if not done.exists() or done.read_text() != wanted:
        print(f"Setting up {_AIFLOWS} in {ENVIRONMENT.parent.name}/ ...", file=sys.stderr)
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        _command(sys.executable, "-m", "venv", str(ENVIRONMENT))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _command(*pip, *_NEEDED)
        _command(*pip, "--no-deps", _AIFLOWS)
    _command(str(python), "-W", "ignore", "-c", _IMPORTS)
    done.write_text(wanted)
    return python


def _command(*command: str) -> None:
    ended = subprocess.run(
        command, capture_output=True, text=True, env=_variables(), cwd=CODE, check=False
    )
    if ended.returncode:
        raise BenchmarkError(
            f"Stock aiflows cannot be set up: `{' '.join(command)}` failed:\n{tail(ended.stderr)}\n"
            "Measure without it: python -m tests.benchmarks --without-stock"
        )


def _variables() -> dict[str, str]:
    """Return the environment in which the stub of litellm and the flows are found."""
    return os.environ | {"PYTHONPATH": str(CODE)}


def run(
    python: Path, order: Order, address: str, tokens: Sequence[str], log: Path
) -> Iterator[tuple[str, list[float]]]:
    """Yield each measure that stock aiflows takes, and its values, as they come.

    `tokens` are those of three fresh users. Raises BenchmarkError when it fails.
    """
    orders = {
        "address": address,
        "tokens": list(tokens),
        "measures": order.names,
        "times": order.times,
        "rounds": order.rounds,
        "in_flight": IN_FLIGHT,
        "log": str(log),
    }
    with _process(python, log) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(orders))
            process.stdin.close()
        for line in process.stdout:
            found = json.loads(line)
            yield found["measure"], found["values"]
        if code := process.wait():
            what = "failed" if code > 0 else f"did not end within {_PATIENCE:g} s"
            reason = tail(log.read_text(errors="replace"))
            raise BenchmarkError(f"Stock aiflows {what} on the core; what it printed:\n{reason}")


@contextlib.contextmanager
def _process(python: Path, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run the stock side in a process group of its own; at the end none of it is left."""
    with log.open("ab") as errors:
        process: subprocess.Popen[str] = subprocess.Popen(
            [python, "-W", "ignore", str(CODE / "measure.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_variables(),
            cwd=log.parent,  # it leaves a cache where it runs
            start_new_session=True,
        )

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    # Its futures wait for ever for a worker that died.
    watchdog = threading.Timer(_PATIENCE, end)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        end()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
