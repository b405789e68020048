import subprocess
import sys

import pytest

from engine.kits.processes import is_gone, process_mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks need /proc")

MARK = "from engine.kits.processes import process_mark; print(process_mark(), flush=True); input()"


def test_a_running_process_is_not_gone():
    assert process_mark()
    assert process_mark() == process_mark()
    assert not is_gone(process_mark())


def test_a_killed_process_is_gone_even_before_it_is_reaped():
    process = subprocess.Popen(
        [sys.executable, "-c", MARK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    with process:
        mark = process.stdout.readline().strip()
        assert mark != process_mark()
        assert not is_gone(mark)
        process.kill()
        process.stdout.read()
        while not is_gone(mark):
            pass
        assert process.returncode is None
    assert is_gone(mark)


def test_another_process_with_the_same_id_is_not_taken_for_it():
    place, pid, start = process_mark().rsplit(".", 2)
    assert is_gone(f"{place}.{pid}.{int(start) - 1}")


@pytest.mark.parametrize("mark", ["", "a", "a.b", "other.1.1", "a.b.c.d", "...", "a..1"])
def test_what_cannot_be_judged_is_not_gone(mark):
    assert not is_gone(mark)
