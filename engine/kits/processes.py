"""Marks that tell one process of this machine from all others, dead ones and future ones too."""

import contextlib
import os
from pathlib import Path


def process_mark() -> str:
    """Return this process's mark, without blanks or colons; empty where the system has no /proc.

    It names the boot, the process namespace, the process id and its start, so that neither a
    restart nor the reuse of a process id makes two processes look like one.
    """
    place = _place()
    start = _start(os.getpid())
    return f"{place}.{os.getpid()}.{start}" if place and start else ""


def is_gone(mark: str) -> bool:
    """Tell whether the process with `mark` has certainly ended.

    False for what runs, and for what cannot be judged from here: other machines, no mark at all.
    """
    place, pid, start = ["", "", "", *mark.rsplit(".", 2)][-3:]
    if not pid.isdecimal() or not start or place != _place():
        return False
    return _start(int(pid)) != start


def _place() -> str:
    """Return which boot of which machine, and which process namespace, this is."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path
    except OSError:
        return ""
    return f"{boot}.{namespace.strip('pid:[]')}"


def _start(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty when it has ended."""
    with contextlib.suppress(OSError):
        # The name, in parentheses, may hold anything; state and start are counted after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
