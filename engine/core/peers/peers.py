"""The parts of this package, joined."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.core.effects import Effects
from engine.core.peers.address_book import AddressBook
from engine.core.peers.courier import Courier
from engine.core.peers.dialler import Dialler
from engine.core.peers.incoming import Incoming
from engine.core.peers.links import Links
from engine.core.peers.lookup import Lookup
from engine.core.peers.outbox import Outbox
from engine.core.peers.outgoing import Outgoing
from engine.core.peers.streams import Streams
from engine.core.peers.transport import Transport
from engine.core.settings import Settings
from engine.core.store import Store
from engine.core.tasks import Tasks


@dataclass(frozen=True)
class Peers:
    """What the RPC handlers use, and what is started and stopped with the core."""

    incoming: Incoming
    outgoing: Outgoing
    streams: Streams
    outbox: Outbox
    _courier: Courier
    _dialler: Dialler | None
    _lookup: Lookup
    _links: Links

    def start(self) -> None:
        """Take up what was not delivered when the core ended. From here on things are sent."""
        self.outbox.on_parcel = self._courier.wake
        self._courier.start()
        if self._dialler is not None:
            self._dialler.start()

    async def stop(self) -> None:
        """Close all connections; what was not delivered stays in the outbox."""
        self.streams.close_all()
        if self._dialler is not None:
            await self._dialler.stop()
        await self._courier.stop()
        await self._lookup.stop()
        await self._links.close()


def join_peers(
    settings: Settings,
    store: Store,
    tasks: Tasks,
    effects: Effects,
    book: AddressBook,
    outbox: Outbox,
    is_answered: Callable[[str], bool],
) -> Peers:
    """Build the parts; nothing is started. `is_answered`: see `Lookup`.

    Raises UsageError when a file for TLS between cores cannot be read.
    """
    links, streams = Links(settings), Streams()
    lookup = Lookup(book, tasks, effects, is_answered)
    tasks.on_entered.append(lookup.entered)
    incoming = Incoming(store, tasks, effects, streams)
    dialler = (
        Dialler(store, links, book, tasks, incoming.take_streamed)
        if settings.inter_core_reverse_mode
        else None
    )
    transport = Transport(book, lookup, streams, links, dialler)
    courier = Courier(outbox, transport, streams)
    outgoing = Outgoing(store, tasks, effects, transport, courier)
    courier.on_undeliverable = outgoing.undeliverable
    streams.on_change = courier.wake
    return Peers(incoming, outgoing, streams, outbox, courier, dialler, lookup, links)
