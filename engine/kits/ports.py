"""Choosing a TCP port that a server can keep over its restarts."""

import contextlib
import random
import socket

_PORTS = range(11_000, 32_000)
"""Outside of what Linux and macOS give to the near ends of connections: a server that is down for a
moment must not lose its port to somebody's connection, or to an attempt to connect to itself."""
_LOOPBACK = "127.0.0.1"
_ATTEMPTS = 1_000
_ANY = random.SystemRandom()
"""Not the module's own generator: whoever seeds that alike in two processes gets equal ports."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on, outside the ephemeral range.

    It is free now; who listens on it later has to see whether it still is. Raises OSError when no
    port is found.
    """
    for _ in range(_ATTEMPTS):
        port = _ANY.choice(_PORTS)
        if is_free(port):
            return port
    raise OSError(f"No free port was found between {_PORTS.start} and {_PORTS.stop}.")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((_LOOPBACK, port))
            return True
    return False
