"""Channels to other cores: one for each address, with this core's certificates (§3.5)."""

import asyncio
from collections import OrderedDict
from pathlib import Path

from engine.colink.rpc import CoreChannel
from engine.core.settings import Settings
from engine.model.errors import UsageError
from engine.model.manifest import TlsSpec

_MOST = 256
"""Channels kept open: users may name any number of addresses."""
_CLOSED_AFTER = 60.0


class Links:
    """The channels, the least recently used of which are closed when they become too many."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError when a file for TLS cannot be read."""
        self._tls = TlsSpec(
            ca=settings.inter_core_ca, cert=settings.inter_core_cert, key=settings.inter_core_key
        )
        for path in (self._tls.ca, self._tls.cert, self._tls.key):
            if path and not Path(path).is_file():
                raise UsageError(f"The file {path} for TLS between cores cannot be read.")
        self._channels: OrderedDict[str, CoreChannel] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def to(self, address: str) -> CoreChannel:
        """Return the channel to the core at `address`; UsageError when that is no address."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = CoreChannel(address, self._tls)
            if len(self._channels) > _MOST:
                self._retire(self._channels.popitem(last=False)[1])
        self._channels.move_to_end(address)
        return channel

    async def close(self) -> None:
        """Close all channels; calls under way fail."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()

    def _retire(self, channel: CoreChannel) -> None:
        async def close() -> None:
            try:
                # Calls under way are shorter than this; a reverse connection is dialled again.
                await asyncio.sleep(_CLOSED_AFTER)
            finally:
                await channel.close()

        task = asyncio.create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
