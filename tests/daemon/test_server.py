"""The control API, as far as it is more than passing on."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from engine.daemon.server import ControlServer
from engine.model.home import Home


class EndlessOperations:
    """Stands for operations on a flow that never answers."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def call(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.begun.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


async def test_a_call_is_given_up_when_who_asked_has_left() -> None:
    operations: Any = EndlessOperations()
    controller: Any = None
    with tempfile.TemporaryDirectory(prefix="engine") as folder:
        home = Home(Path(folder))
        server = ControlServer(controller, operations, home)
        await server.start()
        try:
            _, writer = await asyncio.open_unix_connection(str(home.socket))
            body = json.dumps({"user": "u", "name": "n", "data": {}}).encode()
            head = f"POST /v1/call HTTP/1.1\r\nHost: engine\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            async with asyncio.timeout(20):
                await operations.begun.wait()
                writer.close()
                await operations.cancelled.wait()
        finally:
            await server.close()
