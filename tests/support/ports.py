"""Ports for servers that tests start, and start again after a while."""

import contextlib
import random
import socket

_PORTS = range(11_000, 32_000)
"""Outside of what the system gives to the near ends of connections: a server that is down for a
moment must not lose its port to somebody's connection, or to an attempt to connect to itself."""
_ANY = random.SystemRandom()
"""Not the module's own generator: Hypothesis seeds that alike in every process of a test run."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    while True:
        port = _ANY.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
