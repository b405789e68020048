"""Ports for servers: free, and not those of connections."""

import socket

from engine.kits.ports import free_port, is_free


def test_a_free_port_can_be_listened_on_and_is_then_not_free() -> None:
    port = free_port()
    assert port < 32_768, "from here on Linux gives ports to connections"
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)
