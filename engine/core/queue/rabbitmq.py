"""Queues in a RabbitMQ server (§5.5): accounts and queues by its management API, messages by AMQP.

Each account has a virtual host of its own, with one direct exchange. Queues, exchange and messages
are durable, and the queues' names are ours: RabbitMQ lets nobody make a queue again under a name
that it chose itself, but a queue that was handed out has to be there again whatever the server has
lost. After a crash a message may come twice, as AMQP has it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import aio_pika
import aiohttp
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.exceptions import AMQPError
from yarl import URL

from engine.core.queue.accounts import Account, username_of
from engine.core.queue.port import Routes
from engine.core.subscriptions import Event
from engine.kits.aio import cancel_and_wait
from engine.model.errors import CoreUnavailableError, EngineError, UsageError

log = logging.getLogger(__name__)
EXCHANGE = "CoLink"
_START_TIMEOUT = 30.0
"""Seconds that the server may take to start."""
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15)
_BATCH = 256
_IDLE = 60.0
"""After so many seconds without a message, an account's connection is closed."""
_LOST = (AMQPError, OSError, asyncio.InvalidStateError)
Definitions = dict[str, list[dict[str, Any]]]


class RabbitMq:
    """The `MessageQueue` behind an administrator's `--mq-uri` and `--mq-api`."""

    def __init__(self, uri: str, api: str) -> None:
        self._uri, self._api = URL(uri), URL(api)
        if self._api.user is None:
            self._api = self._api.with_user(self._uri.user).with_password(self._uri.password)

    def uri(self, account: Account) -> str:
        """Return the `mq_uri` for clients.

        Without heartbeats: the SDK sends none while a protocol's function runs, and would lose its
        connection, and with it the operator's thread, after a minute or two of work.
        """
        return str(self.own_uri(account).with_query(heartbeat=0))

    def own_uri(self, account: Account) -> URL:
        """Return where the core itself publishes for an account."""
        place = self._uri.with_user(account.username).with_password(account.password)
        return place.with_path(f"/{account.username}", keep_query=True)

    async def connect(self) -> "RabbitLink":
        """Connect, once the server has started."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _START_TIMEOUT
        while True:
            try:
                watch = await aio_pika.connect(str(self._uri))
            except _LOST as error:
                if loop.time() > end:
                    place = f"{self._uri.host}:{self._uri.port}"
                    raise CoreUnavailableError(
                        f"The message queue at {place} does not answer: {error}."
                    ) from error
                await asyncio.sleep(0.2)
            else:
                return RabbitLink(watch, ManagementApi(self._api), self.own_uri)

    async def lost(self) -> None:
        """Nothing to do: the next attempt to connect will tell."""

    async def stop(self) -> None:
        """It is not ours to stop."""


class ManagementApi:
    """The part of RabbitMQ's HTTP API that makes accounts and queues, as an administrator."""

    def __init__(self, base: URL) -> None:
        self._base = base
        self._session = aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT)

    async def define(self, definitions: Definitions) -> None:
        """Make what is missing of `definitions`."""
        await self._request("POST", self._base / "definitions", json=definitions)

    async def queues(self) -> list[tuple[str, str]]:
        """Return virtual host and name of every queue on the server."""
        address = (self._base / "queues").with_query(columns="vhost,name")
        return [(found["vhost"], found["name"]) for found in await self._request("GET", address)]

    async def delete_queue(self, virtual_host: str, name: str) -> None:
        """Delete a queue, if it is there."""
        address = self._base / "queues" / virtual_host / name
        await self._request("DELETE", address, missing_is_fine=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _request(
        self, method: str, address: URL, *, json: Any = None, missing_is_fine: bool = False
    ) -> Any:
        try:
            async with self._session.request(method, address, json=json) as answer:
                if answer.status == 404 and missing_is_fine:
                    return None
                if answer.status >= 400:
                    raise _refusal(address, answer.status, await answer.text())
                return await answer.json() if method == "GET" else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CoreUnavailableError(
                f"The management API at {_shown(address)} does not answer: {error or 'timed out'}."
            ) from error


class RabbitLink:
    """A `Link`: one connection to see that the server is there, one for each account in use."""

    def __init__(
        self, watch: AbstractConnection, api: ManagementApi, uri: Callable[[Account], URL]
    ) -> None:
        self._ended = asyncio.Event()
        self._watch = watch
        self._api = api
        self._uri = uri
        self._accounts: dict[str, Account] = {}
        self._senders: dict[str, _Sender] = {}
        watch.close_callbacks.add(lambda *_: self._ended.set())

    @property
    def ended(self) -> asyncio.Event:
        """See Link."""
        return self._ended

    async def restore(self, accounts: Sequence[Account], routes: Routes) -> list[str]:
        """See Link."""
        self._accounts = {account.username: account for account in accounts}
        found: set[str] = set()
        for virtual_host, queue in await self._api.queues():
            # What a user declared himself has a name of another form.
            if virtual_host in self._accounts and username_of(queue) == virtual_host:
                found.add(queue)
        await self._api.define(_definitions(accounts, routes))
        for queue in found.difference(routes):
            await self.remove_queue(queue)
        return [queue for queue in routes if queue not in found]

    async def add_account(self, account: Account) -> None:
        """See Link."""
        self._accounts[account.username] = account
        await self._api.define(_definitions([account], {}))

    async def add_queue(self, queue: str, routing_key: str) -> None:
        """See Link."""
        await self._api.define(_definitions([], {queue: routing_key}))

    async def remove_queue(self, queue: str) -> None:
        """See Link."""
        await self._api.delete_queue(username_of(queue), queue)

    def publish(self, events: Sequence[Event], delivered: Callable[[int], None]) -> None:
        """See Link."""
        for event in events:
            username = username_of(event.queue)
            sender = self._senders.get(username)
            if sender is None:
                sender = self._senders[username] = _Sender()
                sender.task = asyncio.create_task(self._send(username, sender))
                sender.task.add_done_callback(partial(self._sender_ended, username))
            sender.waiting.put_nowait((event, delivered))

    async def flush(self) -> None:
        """See Link."""
        for sender in list(self._senders.values()):
            await sender.waiting.join()

    async def tidy(self) -> None:
        """Nothing to do: what is idle ends by itself."""

    async def lengths(self) -> Mapping[str, int]:
        """See Link. RabbitMQ holds to limits of its own."""
        return {}

    async def close(self) -> None:
        """See Link."""
        await cancel_and_wait([s.task for s in self._senders.values() if s.task is not None])
        with contextlib.suppress(*_LOST):
            await self._watch.close()
        await self._api.close()

    async def _send(self, username: str, sender: "_Sender") -> None:
        """Publish for one account until there is nothing to publish for a while."""
        try:
            connection = await aio_pika.connect(str(self._uri(self._accounts[username])))
            try:
                channel = await connection.channel()
                exchange = await channel.get_exchange(EXCHANGE, ensure=False)
                while await sender.turn(exchange):
                    pass
                # Nothing waits between the last look and this: what comes now gets a new sender.
                del self._senders[username]
            finally:
                with contextlib.suppress(*_LOST):
                    await connection.close()
        except _LOST as error:
            log.warning("cannot publish for %s, trying again: %s", username, error)

    def _sender_ended(self, username: str, done: "asyncio.Task[None]") -> None:
        """Have all of it connected anew when a sender ended that is not done.

        However it ended: the library also cancels who waits for a connection that breaks.
        """
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("publishing for %s failed", username, exc_info=error)
        if username in self._senders:
            self._ended.set()


class _Sender:
    """The messages of one account that wait to be published, in order."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[tuple[Event, Callable[[int], None]]] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def turn(self, exchange: AbstractExchange) -> bool:
        """Wait for messages and publish some of them; False when none came for a while."""
        try:
            batch = [await asyncio.wait_for(self.waiting.get(), _IDLE)]
        except TimeoutError:
            return not self.waiting.empty()
        while len(batch) < _BATCH and not self.waiting.empty():
            batch.append(self.waiting.get_nowait())
        await asyncio.gather(*(_publish(exchange, *one) for one in batch))
        for _ in batch:
            self.waiting.task_done()
        return True


async def _publish(
    exchange: AbstractExchange, event: Event, delivered: Callable[[int], None]
) -> None:
    """Publish a message to its queue only, and wait until the server has it on its disk.

    One for a queue that is gone is returned by the server, and done with.
    """
    message = aio_pika.Message(
        event.message,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(event.id),
    )
    await exchange.publish(message, event.queue)
    delivered(event.id)


def _definitions(accounts: Sequence[Account], routes: Routes) -> Definitions:
    """Return accounts and queues as RabbitMQ's definitions; all is there after they are posted."""
    durable = {"durable": True, "auto_delete": False, "arguments": {}}
    names = [account.username for account in accounts]
    bindings = [(queue, key) for queue, route in routes.items() for key in (queue, route)]
    return {
        "users": [
            {"name": account.username, "password": account.password, "tags": ""}
            for account in accounts
        ],
        "vhosts": [{"name": name} for name in names],
        "permissions": [
            {"user": name, "vhost": name, "configure": ".*", "write": ".*", "read": ".*"}
            for name in names
        ],
        "exchanges": [
            {"name": EXCHANGE, "vhost": name, "type": "direct", "internal": False, **durable}
            for name in names
        ],
        "queues": [{"name": queue, "vhost": username_of(queue), **durable} for queue in routes],
        "bindings": [
            {
                "vhost": username_of(queue),
                "source": EXCHANGE,
                "destination": queue,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
            for queue, key in bindings
        ],
    }


def _refusal(address: URL, status: int, reason: str) -> EngineError:
    where = _shown(address)
    if status == 401:
        return UsageError(
            f"The management API at {where} does not know us.",
            "Put the name and password of an administrator into --mq-api.",
        )
    if status >= 500:
        return CoreUnavailableError(f"The management API at {where} failed: {reason[:200]}")
    return UsageError(f"The management API at {where} answered {status}: {reason[:200]}")


def _shown(address: URL) -> str:
    """Return an address without the password in it."""
    return str(address.with_user(None).with_query(None))
