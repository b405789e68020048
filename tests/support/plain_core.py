# ruff: noqa: N802 - RPCs are named as in the protocol
"""A core that offers the plain protocol and nothing beyond it, kept in memory, for tests.

It stands for the cores that are not ours: no extension, ReadEntries all or nothing, INTERNAL for
whatever fails. Tasks with others are approved at once, unless their protocol is `refused`. What it
keeps survives `stop` and `start`, as in a core with durable storage.
"""

import base64
import itertools
import json
import time
from typing import Any

import grpc
import grpc.aio

from engine.colink import keys, wire
from engine.kits.ports import free_port
from tests.support.valkey import ValkeyServer


def token(user_id: str, privilege: str = "user") -> str:
    """Return a JWT for `user_id` that this core accepts; nobody signed it."""
    fields = {"privilege": privilege, "user_id": user_id, "exp": int(time.time()) + 3600}
    middle = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
    return f"e30.{middle}.c2ln"


class PlainCore(wire.CoLinkServicer):
    """Serves at `address`; counts the calls of each method in `calls`."""

    def __init__(self, valkey: ValkeyServer) -> None:
        self.valkey = valkey
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.calls: dict[str, int] = {}
        self.subscriptions: dict[str, tuple[str, str]] = {}
        self._versions: dict[tuple[str, str], list[tuple[int, bytes | None]]] = {}
        self._accounts: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serve."""
        self._server = grpc.aio.server(
            interceptors=[_Counter(self.calls)],
            options=[("grpc.max_receive_message_length", -1)],
        )
        self.register(self._server)
        self.listen(self._server)
        await self._server.start()

    def register(self, server: Any) -> None:
        """Let `server` answer with this core."""
        wire.add_CoLinkServicer_to_server(self, server)

    def listen(self, server: Any) -> None:
        """Let `server` listen at this core's address."""
        server.add_insecure_port(f"127.0.0.1:{self.port}")

    def names(self) -> list[str]:
        """Return the names of all live entries."""
        return [name for (_, name), versions in self._versions.items() if versions[-1][1]]

    async def stop(self) -> None:
        """Stop at once; calls under way fail."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def queues_of(self, key_name: str) -> list[str]:
        """Return the queues subscribed to a key name."""
        return [queue for queue, (_, name) in self.subscriptions.items() if name == key_name]

    async def RequestInfo(self, request: Any, context: Any) -> Any:
        """Tell the account, once there is one."""
        return wire.RequestInfoResponse(mq_uri=self._accounts.get(_owner(context), ""))

    async def CreateEntry(self, request: Any, context: Any) -> Any:
        """Fail on a live key."""
        if self._value(_owner(context), request.key_name) is not None:
            await context.abort(grpc.StatusCode.INTERNAL, "exists")
        path = self._write(_owner(context), request.key_name, request.payload, "create")
        return wire.StorageEntry(key_path=path)

    async def UpdateEntry(self, request: Any, context: Any) -> Any:
        """Write."""
        path = self._write(_owner(context), request.key_name, request.payload, "update")
        return wire.StorageEntry(key_path=path)

    async def DeleteEntry(self, request: Any, context: Any) -> Any:
        """Fail on an absent key."""
        owner = _owner(context)
        if self._value(owner, request.key_name) is None:
            await context.abort(grpc.StatusCode.INTERNAL, "absent")
        self._versions[owner, request.key_name].append((time.time_ns(), None))
        self._publish(owner, request.key_name, int(time.time()), b"", "delete")
        return wire.StorageEntry()

    async def ReadEntries(self, request: Any, context: Any) -> Any:
        """All or nothing."""
        reply = wire.StorageEntries()
        for entry in request.entries:
            found = self._find(_owner(context), entry)
            if found is None:
                await context.abort(grpc.StatusCode.INTERNAL, "absent")
            reply.entries.add(key_path=found[0], payload=found[1])
        return reply

    async def ReadKeys(self, request: Any, context: Any) -> Any:
        """List one level."""
        owner = _owner(context)
        directory = request.prefix.removeprefix(f"{owner}:").removeprefix(":")
        prefix = f"{directory}:" if directory else ""
        paths = set()
        for (holder, name), versions in self._versions.items():
            if holder == owner and name.startswith(prefix):
                first, colon, _ = name.removeprefix(prefix).partition(":")
                if colon:
                    paths.add(f"{owner}::{prefix}{first}@0")
                elif versions[-1][1] is not None:
                    paths.add(f"{owner}::{name}@{versions[-1][0]}")
        return wire.StorageEntries(entries=[wire.StorageEntry(key_path=path) for path in paths])

    async def Subscribe(self, request: Any, context: Any) -> Any:
        """Make a queue and replay into it."""
        owner = _owner(context)
        number = next(self._numbers)
        if owner not in self._accounts:
            self._accounts[owner] = self.valkey.add_account(f"colink--{owner}", "secret")
        queue = f"colink--{owner}:{number}"
        self.valkey.add_queue(queue)
        self.subscriptions[queue] = (owner, request.key_name)
        for timestamp, payload in self._versions.get((owner, request.key_name), []):
            if timestamp >= request.start_timestamp and payload is not None:
                self._send(queue, owner, request.key_name, timestamp, payload, "in-storage")
        return wire.MQQueueName(queue_name=queue)

    async def Unsubscribe(self, request: Any, context: Any) -> Any:
        """Delete the queue."""
        if self.subscriptions.pop(request.queue_name, None) is None:
            await context.abort(grpc.StatusCode.INTERNAL, "no such queue")
        self.valkey.command("XGROUP", "DESTROY", request.queue_name, request.queue_name)
        self.valkey.command("DEL", request.queue_name)
        return wire.Empty()

    async def CreateTask(self, request: Any, context: Any) -> Any:
        """Start the task at every participant."""
        number = next(self._numbers)
        request.task_id = f"{number:08}-0000-4000-8000-000000000000"
        request.status = "rejected" if request.protocol_name == "refused" else "started"
        for participant in request.participants:
            self._announce(participant.user_id, participant.role, request)
        if request.protocol_name == "remote_storage.create":
            params = wire.CreateParams.FromString(request.protocol_param)
            name = keys.remote_storage(request.participants[0].user_id, params.remote_key_name)
            for provider in request.participants[1:]:
                self._write(provider.user_id, name, params.payload, "create")
        return wire.Task(task_id=request.task_id)

    async def FinishTask(self, request: Any, context: Any) -> Any:
        """Only from started."""
        owner = _owner(context)
        value = self._value(owner, keys.task(request.task_id))
        task = wire.Task.FromString(value or b"")
        if task.status != "started":
            await context.abort(grpc.StatusCode.INTERNAL, "not started")
        task.status = "finished"
        self._announce(owner, "", task)
        return wire.Empty()

    def _announce(self, owner: str, role: str, task: Any) -> None:
        bare = wire.Task(task_id=task.task_id).SerializeToString()
        self._write(owner, keys.task(task.task_id), task.SerializeToString(), "update")
        latest = keys.protocol_latest(task.protocol_name, task.status, role)
        self._write(owner, latest, bare, "update")

    def _find(self, owner: str, entry: Any) -> tuple[str, bytes] | None:
        if entry.key_path:
            for (holder, name), versions in self._versions.items():
                for timestamp, payload in versions:
                    path = f"{holder}::{name}@{timestamp}"
                    if path == entry.key_path and payload is not None:
                        return path, payload
            return None
        value = self._value(owner, entry.key_name)
        if value is None:
            return None
        timestamp = self._versions[owner, entry.key_name][-1][0]
        return f"{owner}::{entry.key_name}@{timestamp}", value

    def _value(self, owner: str, name: str) -> bytes | None:
        versions = self._versions.get((owner, name))
        return versions[-1][1] if versions else None

    def _write(self, owner: str, name: str, payload: bytes, change_type: str) -> str:
        timestamp = time.time_ns()
        self._versions.setdefault((owner, name), []).append((timestamp, payload))
        self._publish(owner, name, timestamp, payload, change_type)
        return f"{owner}::{name}@{timestamp}"

    def _publish(
        self, owner: str, name: str, timestamp: int, payload: bytes, change_type: str
    ) -> None:
        for queue, subscribed in self.subscriptions.items():
            if subscribed == (owner, name):
                self._send(queue, owner, name, timestamp, payload, change_type)

    def _send(
        self, queue: str, owner: str, name: str, timestamp: int, payload: bytes, change_type: str
    ) -> None:
        message = wire.SubscriptionMessage(
            change_type=change_type, key_path=f"{owner}::{name}@{timestamp}", payload=payload
        )
        self.valkey.publish(queue, message.SerializeToString())


class _Counter(grpc.aio.ServerInterceptor):
    def __init__(self, calls: dict[str, int]) -> None:
        self._calls = calls

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self._calls[name] = self._calls.get(name, 0) + 1
        return await continuation(details)


def _owner(context: Any) -> str:
    jwt = dict(context.invocation_metadata())["authorization"]
    middle = jwt.split(".")[1]
    fields = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return str(fields["user_id"])
