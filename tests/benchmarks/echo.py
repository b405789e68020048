"""A gRPC service that answers what it is asked: the floor under any service on grpc.aio."""

import asyncio
from typing import Any

import grpc
import grpc.aio


async def main() -> None:
    """Print the port and serve until the process is ended."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("echo.Echo", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
