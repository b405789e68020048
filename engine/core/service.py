"""The RPCs of `colink.CoLink`: each takes a request, asks the parts, and answers (§2.2).

A handler is a plain function where it need not wait. What it writes is committed, and the built-in
operators' follow-up with it, before the answer leaves.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import grpc

from engine.colink import keys, wire
from engine.core import auth, locks
from engine.core.parts import Parts
from engine.core.queue.accounts import new_queue_name
from engine.core.refusals import Refusal, conflict, denied, exhausted, malformed
from engine.core.reserved import check_writable
from engine.core.subscriptions import routing_key
from engine.core.tokens import GUEST, HOST, USER, Bearer
from engine.model.errors import CoreUnavailableError

log = logging.getLogger(__name__)
_LATEST = 2**63 - 1
"""The greatest timestamp there can be, in nanoseconds."""
Handler = Callable[..., Any]


def answer(
    parts: Parts, allowed: frozenset[str], handler: Handler, *, with_context: bool = False
) -> Callable[..., Any]:
    """Return the gRPC method that checks the caller, runs `handler`, and waits for the commit.

    The handler gets the caller and the request, and the call's context too if it wants that.
    """
    gate, guard, effects, store = parts.gate, parts.guard, parts.effects, parts.store

    async def method(request: Any, context: Any) -> Any:
        try:
            caller = gate.caller(context, allowed)
            if request is wire.UNREADABLE:
                raise malformed("The request is no such message.")
            guard.admit(caller.user_id or auth.peer_ip(context), request)
            more = (context,) if with_context else ()
            reply = handler(caller, request, *more)
            if asyncio.iscoroutine(reply):
                reply = await reply
            if effects.pending:
                effects.run()
            if store.in_transaction:
                # Also for readers: what they were shown must not vanish.
                await store.committed()
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.message)
        except CoreUnavailableError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except sqlite3.Error as error:
            log.exception("the storage failed")
            # Not INTERNAL, which means for most RPCs that an entry is there or is not (§2.3).
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"The storage failed: {error}.")
        except Exception:
            log.exception("a call failed")
            await context.abort(grpc.StatusCode.INTERNAL, "The core failed; its log says why.")
        return reply

    return method


class Service:
    """Builds the servicer: an object with a method for each RPC."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def servicer(self) -> wire.CoLinkServicer:
        """Return what `wire.add_CoLinkServicer_to_server` takes."""
        servicer = wire.CoLinkServicer()
        table: dict[str, tuple[frozenset[str], Handler]] = {
            "GenerateToken": (auth.ANYBODY, self.generate_token),
            "ImportUser": (auth.HOSTS, self.import_user),
            "CreateEntry": (auth.OWNERS, self.create_entry),
            "ReadEntries": (auth.OWNERS, self.read_entries),
            "UpdateEntry": (auth.OWNERS, self.update_entry),
            "DeleteEntry": (auth.OWNERS, self.delete_entry),
            "ReadKeys": (auth.OWNERS, self.read_keys),
            "CreateTask": (auth.USERS, self.create_task),
            "ConfirmTask": (auth.USERS, self.confirm_task),
            "FinishTask": (auth.USERS, self.finish_task),
            "Subscribe": (auth.OWNERS, self.subscribe),
            "Unsubscribe": (auth.OWNERS, self.unsubscribe),
            "StartProtocolOperator": (auth.OWNERS, self.start_protocol_operator),
            "StopProtocolOperator": (auth.OWNERS, self.stop_protocol_operator),
        }
        for name, (allowed, handler) in table.items():
            setattr(servicer, name, answer(self._parts, allowed, handler))
        # These two need more of the call than its caller and its request.
        vars(servicer)["RequestInfo"] = answer(
            self._parts, auth.ANYBODY, self._request_info, with_context=True
        )
        vars(servicer)["InterCoreSyncTask"] = answer(
            self._parts, auth.PEERS, self._sync_task, with_context=True
        )
        vars(servicer)["InterCoreSyncTaskWithReverseConnection"] = self._reverse_connection
        return servicer

    # Identity

    def generate_token(self, caller: Bearer, request: wire.GenerateTokenRequest) -> wire.Jwt:
        """§3.3: a token for the calling user, or for who gives a valid consent."""
        if caller.privilege == USER:
            user_id = caller.user_id
        elif request.HasField("user_consent"):
            user_id = self._parts.users.check_renewal(request.user_consent, self._parts.entries)
        else:
            raise denied("Only users, or bearers of a user's consent, get tokens.")
        if request.privilege not in (USER, GUEST):
            raise denied(f"No tokens are given for the privilege {request.privilege!r}.")
        token = self._parts.tokens.mint(request.privilege, user_id, request.expiration_time)
        return wire.Jwt(jwt=token)

    def import_user(self, caller: Bearer, consent: wire.UserConsent) -> wire.Jwt:
        """§3.4: make somebody a user of this core. Again for a known one: renews his consent."""
        parts = self._parts
        user_id = parts.users.check_import(consent)
        parts.users.add(user_id, consent, parts.entries)
        token = parts.tokens.mint(USER, user_id, consent.expiration_timestamp)
        parts.entries.update(caller.user_id, keys.user_jwt(user_id), token.encode())
        parts.initialisation.run(user_id)
        return wire.Jwt(jwt=token)

    # Storage

    def create_entry(self, caller: Bearer, entry: wire.StorageEntry) -> wire.StorageEntry:
        """§4.1; a lock (§7.3) that was left behind is taken over."""
        self._check_writable(entry.key_name)
        lease = self._parts.settings.lock_lease_seconds
        if lease > 0:
            before = time.time_ns() - int(lease * 1e9)
            locks.release_abandoned(self._parts.entries, caller.user_id, entry.key_name, before)
        path = self._parts.entries.create(caller.user_id, entry.key_name, entry.payload)
        return wire.StorageEntry(key_path=path)

    def update_entry(self, caller: Bearer, entry: wire.StorageEntry) -> wire.StorageEntry:
        """§4.1."""
        self._check_writable(entry.key_name)
        path = self._parts.entries.update(caller.user_id, entry.key_name, entry.payload)
        return wire.StorageEntry(key_path=path)

    def delete_entry(self, caller: Bearer, entry: wire.StorageEntry) -> wire.StorageEntry:
        """§4.1."""
        self._check_writable(entry.key_name)
        return wire.StorageEntry(
            key_path=self._parts.entries.delete(caller.user_id, entry.key_name)
        )

    def read_entries(self, caller: Bearer, request: wire.StorageEntries) -> wire.StorageEntries:
        """§4.1: all or nothing; by path first, then by name."""
        names: dict[str, None] = {}
        paths: dict[str, None] = {}
        for entry in request.entries:
            if bool(entry.key_name) == bool(entry.key_path):
                raise malformed("An entry to read has either a key_name or a key_path.")
            if entry.key_name:
                names[entry.key_name] = None
            else:
                paths[entry.key_path] = None
        found = [(path, self._at_path(caller, path)) for path in paths]
        versions = self._parts.entries.find_all(caller.user_id, list(names))
        if versions is None:
            missing = next(n for n in names if self._parts.entries.get(caller.user_id, n) is None)
            raise conflict(f"There is no entry {missing}.")
        prefix = f"{caller.user_id}::"
        found += [
            (f"{prefix}{name}@{version.timestamp}", version.payload)
            for name, version in zip(names, versions, strict=True)
        ]
        reply = wire.StorageEntries()
        add = reply.entries.add
        for path, payload in dict(found).items():
            add(key_path=path, payload=payload)
        return reply

    def read_keys(self, caller: Bearer, request: wire.ReadKeysRequest) -> wire.StorageEntries:
        """§4.2: one directory, the one named exactly `prefix` and a colon."""
        if caller.privilege == USER and not request.prefix.startswith(caller.user_id):
            raise malformed("A user's prefix begins with his own id.")
        owner, separator, directory = f"{request.prefix}:".partition("::")
        if not separator or (caller.privilege == USER and owner != caller.user_id):
            return wire.StorageEntries()
        paths = self._parts.entries.listing(owner, directory, history=request.include_history)
        return wire.StorageEntries(entries=[wire.StorageEntry(key_path=path) for path in paths])

    def _check_writable(self, name: str) -> None:
        check_writable(name, protect=not self._parts.settings.allow_internal_writes)

    def _at_path(self, caller: Bearer, path: str) -> bytes:
        owner, separator, rest = path.partition("::")
        if caller.privilege == USER and owner != caller.user_id:
            raise denied("The key path is not one of yours.")
        name, _, timestamp = rest.rpartition("@")
        payload = None
        # Numbers longer than those of nanoseconds are not read at all: Python refuses huge ones.
        is_number = timestamp.isdecimal() and len(timestamp) < 20
        if separator and is_number and int(timestamp) <= _LATEST:
            payload = self._parts.entries.find_version(owner, name, int(timestamp))
        if payload is None:
            raise conflict(f"There is nothing at {path}.")
        return payload

    # Tasks

    async def create_task(self, caller: Bearer, request: wire.Task) -> wire.Task:
        """§6.1."""
        return wire.Task(task_id=await self._parts.peers.outgoing.create(caller.user_id, request))

    async def confirm_task(self, caller: Bearer, request: wire.ConfirmTaskRequest) -> wire.Empty:
        """§6.2."""
        if not request.HasField("decision"):
            raise malformed("The request has no decision.")
        await self._parts.peers.outgoing.confirm(caller.user_id, request.task_id, request.decision)
        return wire.Empty()

    def finish_task(self, caller: Bearer, request: wire.Task) -> wire.Empty:
        """§6.3."""
        self._parts.tasks.finish(caller.user_id, request.task_id)
        return wire.Empty()

    async def _sync_task(self, caller: Bearer, request: wire.Task, context: Any) -> wire.Empty:
        """§6.5, at the receiver; §6.6, at the core of a forwarder."""
        target = auth.metadata(context, "forwarding-target")
        if target is None:
            self._parts.tasks.receive(caller.user_id, request)
        else:
            await self._parts.peers.incoming.forward(caller.user_id, target, request)
        return wire.Empty()

    async def _reverse_connection(self, request: wire.Task, context: Any) -> None:
        """§6.6, at the receiver: the call stays open, and carries tasks back."""
        try:
            caller = self._parts.gate.caller(context, auth.PEERS)
            await self._parts.peers.incoming.hold(caller.user_id, request, context)
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.message)

    # Subscriptions

    async def subscribe(self, caller: Bearer, request: wire.SubscribeRequest) -> wire.MQQueueName:
        """§5.1: the queue exists before it is named in the answer; replay is oldest first."""
        parts, name = self._parts, request.key_name
        owner_id = parts.store.owner_id(caller.user_id)
        limit = parts.settings.limits.max_queues
        if 0 < limit <= parts.subscriptions.count(owner_id):
            raise exhausted(f"You have {limit:g} queues already. End some with Unsubscribe.")
        account = parts.accounts.find(owner_id)
        if account is None:
            account = parts.accounts.add(owner_id)
            parts.entries.update_silently(
                caller.user_id, keys.MQ_URI, parts.queue_uri(account).encode()
            )
            await parts.publisher.add_account(account)
        queue = new_queue_name(account)
        await parts.publisher.add_queue(queue, routing_key(caller.user_id, name))
        # From here on nothing waits: no change is missed, none is told twice.
        parts.subscriptions.add(owner_id, name, queue)
        for version in parts.entries.since(caller.user_id, name, request.start_timestamp):
            parts.subscriptions.send(queue, owner_id, name, "in-storage", *version)
        return wire.MQQueueName(queue_name=queue)

    async def unsubscribe(self, caller: Bearer, request: wire.MQQueueName) -> wire.Empty:
        """§5.6: only the owner's own queues."""
        owner_id = self._parts.store.owner_id(caller.user_id)
        if not self._parts.subscriptions.remove(owner_id, request.queue_name):
            raise conflict(f"You have no queue {request.queue_name!r}.")
        await self._parts.store.committed()
        await self._parts.publisher.remove_queue(request.queue_name)
        return wire.Empty()

    # Operators and information

    async def start_protocol_operator(
        self, caller: Bearer, request: wire.StartProtocolOperatorRequest
    ) -> wire.ProtocolOperatorInstanceId:
        """§7.4: one that is built in, or the program of a package."""
        operators = self._parts.operators
        operators.check_start(caller, request)
        if operators.knows(request.protocol_name):
            instance_id = operators.run(request.user_id, request.protocol_name)
        else:
            instance_id = await self._parts.external.start(request)
        return wire.ProtocolOperatorInstanceId(instance_id=instance_id)

    async def stop_protocol_operator(
        self, caller: Bearer, request: wire.ProtocolOperatorInstanceId
    ) -> wire.Empty:
        """§7.4."""
        self._parts.operators.stop(caller, request.instance_id)
        await self._parts.external.stop(request.instance_id)
        return wire.Empty()

    def _request_info(
        self, caller: Bearer, request: wire.Empty, context: Any
    ) -> wire.RequestInfoResponse:
        parts, mq_uri = self._parts, ""
        if caller.privilege in (USER, HOST):
            account = parts.accounts.find(parts.store.known_owner_id(caller.user_id))
            mq_uri = parts.queue_uri(account) if account is not None else ""
        return wire.RequestInfoResponse(
            mq_uri=mq_uri,
            core_public_key=parts.key_pair.public_key,
            requestor_ip=auth.requestor_ip(context),
            version=parts.version,
        )
