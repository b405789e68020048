"""coflows_scheduler: takes in pushed messages and creates dispatch tasks for them (§9.5, §9.9).

What to dispatch when is decided by `engine.colink.mailbox`. Messages that wait are rows of the
table `mailbox`; what is in flight are the user's started dispatch tasks. So the mailboxes in memory
are only a cache, made again from those two whenever it is missing.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial

from engine.colink import keys, wire
from engine.colink.mailbox import (
    CANCEL,
    STORAGE,
    Dispatch,
    Mailboxes,
    PushParam,
    Route,
    decode_dispatch,
    decode_push,
    encode_dispatch,
)
from engine.colink.payloads import is_set, json_bytes
from engine.core.operators import variables
from engine.core.operators.base import Desk, Handler
from engine.core.operators.inboxes import Inbox
from engine.core.task_table import TaskCopy
from engine.core.transitions import places_of
from engine.model.errors import EngineError, UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT
from engine.serving.admission import (
    Arrival,
    Door,
    cancelled,
    check_cancellation,
    check_message,
    check_reply,
)
from engine.serving.configuration import servers_of
from engine.serving.endpoints import EndpointRecord, decoded
from engine.serving.error_replies import refusal
from engine.serving.mounting import Place
from engine.serving.outgoing import PROTOCOL

log = logging.getLogger(__name__)
_LIFETIME = 86400
_MESSAGE = "msg"
_SENDING = "coflows_push:initiator"


class Scheduler:
    """Both roles of `coflows_push`, and the follow-up of finished dispatch tasks."""

    package = "coflows_scheduler"
    protocols: tuple[str, ...] = ("coflows_scheduler", "coflows_push")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._mailboxes: dict[str, Mailboxes] = {}
        self.handlers: Mapping[str, Handler] = {
            _SENDING: self._send,
            "coflows_push:receiver": self._take_in,
            "coflows_scheduler:local": desk.finish,
        }

    def start(self, user_id: str) -> None:
        """Nothing has to be written."""

    def resume(self, user_id: str) -> None:
        """Dispatch what is due."""
        self._boxes(user_id)

    def forget(self, user_id: str) -> None:
        """Make the mailboxes anew at the next push."""
        self._mailboxes.pop(user_id, None)

    def forget_all(self) -> None:
        """Do so for all users."""
        self._mailboxes.clear()

    def on_task(self, copy: TaskCopy) -> Handler | None:
        """Follow up finished dispatch tasks."""
        dispatch = copy.status == "finished" and "dispatch" in copy.task.protocol_name
        return self._dispatched if dispatch else None

    # Pushes

    def _send(self, copy: TaskCopy) -> None:
        """Give the message to the receivers; those with a scheduler in this core fetch it."""
        push = _push(copy)
        for participant in copy.task.participants[1:] if push is not None else ():
            receiver = participant.user_id
            if push is None or self._desk.runs(receiver, self.package):
                continue
            payload = self._desk.entries.get(copy.owner, push.message_id)
            if payload is None:
                log.warning("%s pushes the absent entry %s", copy.owner, push.message_id)
                continue
            variables.send(self._desk, copy.owner, copy.task.task_id, _MESSAGE, payload, receiver)
        self._desk.finish(copy)

    def on_inbox(self, owner: str, task_id: str, receiver: str, payload: bytes) -> None:
        """Post a pushed message to the receiver's own inbox, where he waits for nothing else."""
        inbox, copy = Inbox.parse(payload), self._desk.tasks.get(owner, task_id)
        if inbox is None or copy is None or not places_of(copy.task, receiver):
            return
        if f"{copy.task.protocol_name}:{copy.role}" != _SENDING or (push := _push(copy)) is None:
            return
        message = self._desk.entries.get(owner, push.message_id)
        if message is not None:
            post = partial(self._desk.inboxes.post, inbox, owner, _MESSAGE, message)
            self._desk.store.after_commit(post)

    def _take_in(self, copy: TaskCopy) -> None:
        """Get the message that a push task brings, and take it in."""
        push, sender = _push(copy), copy.task.participants[0].user_id
        if push is None:
            self._desk.finish(copy)
        elif sender == copy.owner or self._desk.runs(sender, self.package):
            self._arrived(copy, push, self._desk.entries.get(sender, push.message_id))
        else:
            variables.receive(
                *(self._desk, copy.owner, copy.task.task_id, _MESSAGE, sender),
                lambda payload: self._arrived(copy, push, payload),
            )

    def _arrived(self, copy: TaskCopy, push: PushParam, payload: bytes | None) -> None:
        """Take in, or refuse, what a push brings; the task is then finished."""
        owner, sender = copy.owner, copy.task.participants[0].user_id
        if payload is None:
            log.warning("%s pushes the absent entry %s", sender, push.message_id)
        elif sender != owner and self._desk.entries.find(owner, push.message_id) is not None:
            # Stored and accepted are one transaction: it came before, and is being handled.
            log.info("%s has the message %s already", owner, push.message_id)
        else:
            arrival = Arrival(owner, sender, push.message_id, payload)
            try:
                self._let_in(copy, push, arrival)
            except EngineError as error:
                self._refuse(copy, push, arrival, error)
        self._desk.finish(copy)

    def _let_in(self, copy: TaskCopy, push: PushParam, arrival: Arrival) -> None:
        """Store a message and put it into its flow instance's mailbox; replies are only stored.

        Raises EngineError when it is not to be let in.
        """
        owner, entries = copy.owner, self._desk.entries
        if push.flow_id == CANCEL:
            self._cancel(arrival)
            return
        if push.flow_id == STORAGE:
            question = entries.get(owner, keys.message_of_response(push.message_id))
            stored = check_reply(arrival, question)
        else:
            reply = arrival.is_foreign_reply()
            route, door = self._look_up(owner, push.flow_id, servers=reply)
            boxes = self._boxes(owner)
            again = boxes.holds(push.flow_id, push.message_id)
            unfinished = 0 if again else boxes.unfinished(push.flow_id)
            stored = check_message(arrival, door, unfinished)
        if not arrival.own:
            entries.create(owner, push.message_id, stored)
        if push.flow_id != STORAGE:
            self._accept(copy, push, route)

    def _accept(self, copy: TaskCopy, push: PushParam, route: Route) -> None:
        boxes = self._boxes(copy.owner)
        dispatches = boxes.push(push.flow_id, push.message_id, route)
        if dispatches == [Dispatch(push.flow_id, (push.message_id,), route.dispatch_point)]:
            self._create(copy.owner, dispatches[0], copy.task.task_id)
            return
        if not any(push.message_id in dispatch.message_keys for dispatch in dispatches):
            self._desk.store.write(
                "INSERT OR IGNORE INTO mailbox(id, owner, flow_id, message_key) VALUES(?, ?, ?, ?)",
                (
                    *(self._desk.store.tick(), self._desk.store.owner_id(copy.owner)),
                    *(push.flow_id, push.message_id),
                ),
            )
        self._dispatch(copy.owner, dispatches, copy.task.task_id)

    def _cancel(self, arrival: Arrival) -> None:
        """Take a message out of its mailbox that its sender gives up, or tell the workers.

        They are told of one that is done, too: its run may wait for a subflow.
        """
        owner, entries = arrival.own_user_id, self._desk.entries
        flow_id, message_key = cancelled(arrival)
        check_cancellation(arrival, entries.get(owner, message_key))
        if self._boxes(owner).withdraw(flow_id, message_key):
            self._desk.store.write(
                "DELETE FROM mailbox WHERE owner=? AND flow_id=? AND message_key=?",
                (self._desk.store.owner_id(owner), flow_id, message_key),
            )
        else:
            entries.update(owner, keys.ENGINE_CANCELLED, json_bytes(message_key))

    def _refuse(
        self, copy: TaskCopy, push: PushParam, arrival: Arrival, error: EngineError
    ) -> None:
        """Note that a message was refused, and tell its sender why, if he waits for a reply."""
        _, door = self._look_up(copy.owner, push.flow_id)
        resource = door.flow_endpoint if door is not None else push.flow_id
        self._desk.audit.refused(copy.owner, arrival.sender, error, resource)
        outgoing = refusal(arrival, push.flow_id, door, error)
        if outgoing is None:
            return
        self._desk.entries.update_all(copy.owner, list(outgoing.entry().items()))
        told = outgoing.task(copy.owner)
        if told is not None:
            param, participants = told
            self._run(copy.owner, PROTOCOL, param, participants, copy.task.task_id)

    # Dispatches

    def _dispatched(self, copy: TaskCopy) -> None:
        """Dispatch what waited for a finished dispatch task."""
        try:
            flow_id, message_keys = decode_dispatch(copy.task.protocol_param)
        except UsageError:
            return
        boxes = self._boxes(copy.owner)
        route = self._route(copy.owner, flow_id) if boxes.pending(flow_id) else None
        self._dispatch(copy.owner, boxes.finished(flow_id, message_keys, route), copy.task.task_id)

    def _dispatch(self, user_id: str, dispatches: Iterable[Dispatch], parent: str) -> None:
        owner_id = self._desk.store.owner_id(user_id)
        for dispatch in dispatches:
            self._desk.store.write_many(
                "DELETE FROM mailbox WHERE owner=? AND flow_id=? AND message_key=?",
                [(owner_id, dispatch.flow_id, key) for key in dispatch.message_keys],
            )
            self._create(user_id, dispatch, parent)

    def _create(self, user_id: str, dispatch: Dispatch, parent: str) -> None:
        param = encode_dispatch(dispatch.flow_id, dispatch.message_keys)
        self._run(user_id, dispatch.dispatch_point, param, [(user_id, "local")], parent)

    def _run(
        self,
        user_id: str,
        protocol_name: str,
        param: bytes,
        participants: Iterable[tuple[str, str]],
        parent: str,
    ) -> None:
        task = wire.Task(
            protocol_name=protocol_name,
            protocol_param=param,
            participants=[
                wire.Participant(user_id=participant, role=role)
                for participant, role in participants
            ],
            parent_task=parent,
            expiration_time=int(time.time()) + _LIFETIME,
            require_agreement=protocol_name == PROTOCOL,
        )
        self._desk.tasks.create(user_id, task)

    def _boxes(self, user_id: str) -> Mailboxes:
        """Return a user's mailboxes; if they have to be made, dispatch what is due in them."""
        boxes = self._mailboxes.get(user_id)
        if boxes is None:
            boxes, due = self._rebuilt(user_id)
            self._mailboxes[user_id] = boxes
            self._dispatch(user_id, due, "")
        return boxes

    def _rebuilt(self, user_id: str) -> tuple[Mailboxes, list[Dispatch]]:
        boxes, due = Mailboxes(), list[Dispatch]()
        for copy in self._desk.tasks.in_status(user_id, "started"):
            if "dispatch" in copy.task.protocol_name and copy.role == "local":
                try:
                    flow_id, message_keys = decode_dispatch(copy.task.protocol_param)
                except UsageError:
                    continue
                boxes.dispatched(flow_id, message_keys, self._route(user_id, flow_id))
        rows = self._desk.store.execute(
            "SELECT flow_id, message_key FROM mailbox WHERE owner=? ORDER BY id",
            (self._desk.store.known_owner_id(user_id),),
        ).fetchall()
        for flow_id, message_key in rows:
            due += boxes.push(flow_id, message_key, self._route(user_id, flow_id))
        return boxes, due

    def _route(self, user_id: str, flow_id: str) -> Route:
        """Return where an instance's messages go now; the default for one that is not known."""
        return self._look_up(user_id, flow_id)[0]

    def _look_up(
        self, user_id: str, flow_id: str, *, servers: bool = False
    ) -> tuple[Route, Door | None]:
        """Return where an instance's messages go now, and who may send them; None: unknown."""

        def entry(name: str) -> bytes | None:
            return self._desk.entries.get(user_id, name)

        place = Place.decode(flow_id, entry(keys.instance_metadata(flow_id)), user_id)
        if place is None:
            return Route(), None
        endpoint = place.flow_endpoint
        point = entry(place.key("dispatch_point_override")) or entry(
            keys.flow(endpoint, "default_dispatch_point")
        )
        parallel = is_set(entry(keys.flow(endpoint, "parallel_dispatch")))
        singleton = decoded(entry(keys.flow(endpoint, "singleton"))) is True
        record = EndpointRecord.decode(entry(keys.engine_flow(endpoint)))
        config = decoded(entry(place.key("config_overrides"))) if servers else None
        door = Door(endpoint, place.owner, singleton, record, servers_of(config))
        name = (point or b"").decode(errors="replace") or DEFAULT_DISPATCH_POINT
        return Route(name, parallel), door


def _push(copy: TaskCopy) -> PushParam | None:
    """Return what a push task asks; None, and a warning, for what must not be done.

    The sender chooses the key that is written at the receiver: only message keys are allowed.
    """
    try:
        push = decode_push(copy.task.protocol_param)
    except UsageError as error:
        log.warning("the push task %s is dropped: %s", copy.task.task_id, error)
        return None
    if not keys.is_push_key(push.message_id):
        log.warning("%s must not push to the key %r", copy.owner, push.message_id)
        return None
    return push
