"""The queue that all operators of a user's protocol and role share (§7.1)."""

import contextlib

from engine.colink import keys, wire
from engine.colink.client import Client
from engine.colink.locks import locked
from engine.colink.payloads import parse_key_path
from engine.model.errors import EngineError


async def shared_queue(client: Client, protocol_name: str, role: str, *, gone: str = "") -> str:
    """Return the name of the shared queue; make it when there is none.

    `gone` names a queue that turned out not to exist any more: it is replaced. A new queue gets
    every task that is started and not finished yet.
    """
    key = keys.operator_mq(protocol_name, role)
    # Once written it stays: reading it needs no lock.
    known = await _known(client, key, gone)
    if known:
        return known
    async with locked(client, key):
        known = await _known(client, key, gone)
        if known:
            return known
        start_timestamp = await _oldest_started(client, protocol_name, role)
        latest = keys.protocol_latest(protocol_name, "started", role)
        queue_name = await client.subscribe(latest, start_timestamp)
        await client.update(key, queue_name.encode())
    if gone:
        # Who still reads it would handle each task a second time.
        with contextlib.suppress(EngineError):
            await client.unsubscribe(gone)
    return queue_name


async def _known(client: Client, key: str, gone: str) -> str:
    name = (await client.read(key) or b"").decode()
    return "" if name == gone else name


async def _oldest_started(client: Client, protocol_name: str, role: str) -> int:
    """Return when the oldest task that is still started came to be so, in nanoseconds."""
    found = await client.read_version(keys.protocol_list(protocol_name, "started", role))
    if found is None:
        return 0
    path, payload = found
    tasks = wire.CoLinkInternalTaskIDList.FromString(payload).task_ids_with_key_paths
    times = [parse_key_path(task.key_path).timestamp for task in tasks]
    return min(times, default=path.timestamp)
