"""What a reader must know of the machine: its kind, never its name or its folders."""

import os
import platform
from importlib.metadata import version


def machine_text() -> str:
    """Return cores, processor, system and versions in one line."""
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parts = [f"{_cores()} cores ({platform.machine()})", system, python]
    parts += [f"{name} {version(name)}" for name in ("grpcio", "colink")]
    return " · ".join(parts)


def _cores() -> int:
    """Return on how many cores this process may run: in a container fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
