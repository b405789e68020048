"""How a parcel gets to a peer: by a stream he holds open, through a forwarder, or by a call (§6.5).

What can go wrong is of three kinds: the core cannot be reached now (`LaterError`), it refuses the
task for good (`RefusedError`), or nobody knows where the peer is (also `LaterError`, with a reason
of its own, since somebody may tell).
"""

import asyncio

import grpc
import grpc.aio

from engine.colink import wire
from engine.colink.rpc import CoreChannel
from engine.core.peers.address_book import Address, AddressBook, Pair
from engine.core.peers.dialler import Dialler
from engine.core.peers.links import Links
from engine.core.peers.lookup import Lookup
from engine.core.peers.outbox import Parcel
from engine.core.peers.streams import StreamEndedError, Streams
from engine.core.refusals import Refusal, conflict, unreachable
from engine.model.errors import UsageError

DEADLINE = 10.0
"""Seconds that another core may take to accept a task."""
_STALE = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_FOR_GOOD = (
    *_STALE,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.ALREADY_EXISTS,
)


class LaterError(Exception):
    """Not delivered now. `answered` tells that a core was there and said no, for the moment."""

    def __init__(self, reason: str, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class RefusedError(Exception):
    """Refused for good, by the peer's core or because there is no way to him."""


class Transport:
    """Delivers one parcel, once. `dialler` is given in reverse mode only."""

    def __init__(
        self,
        book: AddressBook,
        lookup: Lookup,
        streams: Streams,
        links: Links,
        dialler: Dialler | None,
    ) -> None:
        self._book = book
        self._lookup = lookup
        self._streams = streams
        self._links = links
        self._dialler = dialler

    async def check(self, pair: Pair) -> None:
        """Refuse unless there is a way to a peer, as far as that is known without calling him.

        INTERNAL as upstream for one whom nobody knows; FAILED_PRECONDITION when his forwarder
        would need a forwarder.
        """
        if self._streams.get(pair) is None:
            address = await self._lookup.find(pair)
            if address is None:
                raise conflict(
                    f"The user {pair.peer_id} cannot be reached: he is not on this core, the known"
                    " users have no valid address and token of him, and no registry knows him."
                )
            await self._first_hop(pair, address)

    async def deliver(self, parcel: Parcel) -> None:
        """Bring a parcel to its receiver's core. Raises LaterError, RefusedError."""
        address = await self._lookup.find(parcel.pair)
        if address is None:
            raise LaterError("nobody knows where he is")
        try:
            await self._call(parcel, address)
        except grpc.aio.AioRpcError as error:
            if error.code() in _STALE:
                newer = await self._lookup.find(parcel.pair, wrong=address)
                if newer is not None:
                    raise LaterError("he is elsewhere now") from error
            raise _failure(error) from error

    async def look_again(self, pair: Pair) -> bool:
        """Ask the registries where a peer is who does not answer; True when he is elsewhere."""
        return await self._lookup.find(pair, wrong=self._book.find(pair)) is not None

    def channel(self, pair: Pair) -> CoreChannel | None:
        """Return the channel to a peer's core, whose recovery is worth waiting for."""
        address = self._book.find(pair)
        try:
            return self._links.to(address.core) if address is not None else None
        except UsageError:
            return None

    async def _call(self, parcel: Parcel, address: Address) -> None:
        pair, task = parcel.pair, parcel.task()
        if address.forwarder:
            await self._forward(pair, address, task)
            return
        try:
            if parcel.opening and await self._dial(pair, address, task):
                return
            await self._links.to(address.core).stub.InterCoreSyncTask(
                task, metadata=(("authorization", address.token),), timeout=DEADLINE
            )
        except UsageError as error:
            raise RefusedError(str(error)) from error
        except grpc.aio.UsageError as error:
            raise LaterError("the channel was closed") from error

    async def _dial(self, pair: Pair, address: Address, task: wire.Task) -> bool:
        """Bring a new task by a reverse connection; False when a call has to do it."""
        if self._dialler is None:
            return False
        try:
            return await self._dialler.open(pair, address, task)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return False
            raise

    async def _forward(self, pair: Pair, address: Address, task: wire.Task) -> None:
        """Give a task to the core of the forwarder, which passes it on (§6.6)."""
        # The forwarder may be a user of this core: then the peer's stream ends here.
        stream = self._streams.get(Pair(address.forwarder, pair.peer_id))
        if stream is not None:
            try:
                async with asyncio.timeout(DEADLINE):
                    await stream.write(task)
            except (StreamEndedError, TimeoutError) as error:
                raise LaterError("the forwarder has lost the connection to him") from error
            return
        try:
            hop = await self._first_hop(pair, address)
        except Refusal as refusal:
            raise RefusedError(refusal.message) from refusal
        await self._links.to(hop.core).stub.InterCoreSyncTask(
            task,
            metadata=(("authorization", hop.token), ("forwarding-target", pair.peer_id)),
            timeout=DEADLINE,
        )

    async def _first_hop(self, pair: Pair, address: Address) -> Address:
        """Return the address that is called for a peer: his, or his forwarder's."""
        if not address.forwarder or self._streams.get(Pair(address.forwarder, pair.peer_id)):
            return address
        hop = await self._lookup.find(Pair(pair.user_id, address.forwarder))
        if hop is None:
            raise unreachable(f"The forwarder of {pair.peer_id} is not known.")
        if hop.forwarder:
            raise unreachable(f"The forwarder of {pair.peer_id} is behind a forwarder himself.")
        return hop


def _failure(error: grpc.aio.AioRpcError) -> Exception:
    details = f"{error.code().name}: {error.details() or 'no reason given'}"
    if error.code() in _FOR_GOOD:
        return RefusedError(details)
    return LaterError(details, answered=error.code() is grpc.StatusCode.INTERNAL)
