"""Variables of running tasks (§8.4, remote-storage form).

Between users of this core a sender's value is written straight into the receiver's storage. A peer
whose operator runs outside the core notices nothing: he finds the entries that remote_storage would
have made for him. To users of other cores it goes by remote_storage.
"""

import time
from collections.abc import Callable
from functools import partial

from engine.colink import keys, wire
from engine.colink.payloads import json_bytes
from engine.colink.variables import PATIENCE
from engine.core.operators.base import Desk

# The empty form is understood by both SDKs: "no direct way to me".
_KIND = "_variable_transfer"
_INBOX = json_bytes({"addr": "", "vt_jwt": "", "tls_cert": []})
_LIFETIME = 86400


def inbox_of(name: str) -> str:
    """Return the task whose variable `inbox` an entry of remote_storage is; "" for others."""
    kind, _, rest = name.partition(":")
    task_id, _, key = rest.partition(":")
    return task_id if (kind, key) == (_KIND, "inbox") else ""


def send(desk: Desk, sender: str, task_id: str, key: str, payload: bytes, receiver: str) -> None:
    """Give `receiver` a variable, unless he has it already."""
    if receiver not in desk.users:
        _send_elsewhere(desk, sender, task_id, key, payload, receiver)
        return
    name = keys.variable(sender, task_id, key)
    if desk.entries.get(receiver, name) is None:
        desk.entries.create(receiver, name, payload)


def receive(
    desk: Desk,
    receiver: str,
    task_id: str,
    key: str,
    sender: str,
    then: Callable[[bytes], None],
    *,
    announce: bool = True,
) -> None:
    """Call `then` with a variable, now or as an effect of its arrival.

    A sender outside this module waits to be told how to reach the receiver, so he is told, if he is
    elsewhere only when nothing has come for a moment: from another core of ours it comes unasked.
    With `announce` False nobody is told, for senders who are known not to wait.
    """
    name = keys.variable(sender, task_id, key)
    payload = desk.entries.get(receiver, name)
    if payload is not None:
        then(payload)
        return
    desk.entries.watch(receiver, name, lambda value: desk.effects.add(lambda: then(value)))
    if announce and sender in desk.users:
        send(desk, receiver, task_id, "inbox", _INBOX, sender)
    elif announce:
        desk.effects.later(PATIENCE, partial(_announce, desk, receiver, task_id, name, sender))


def _announce(desk: Desk, receiver: str, task_id: str, name: str, sender: str) -> None:
    copy = desk.tasks.get(receiver, task_id)
    if desk.entries.get(receiver, name) is None and copy is not None and copy.status == "started":
        send(desk, receiver, task_id, "inbox", _INBOX, sender)


def _send_elsewhere(
    desk: Desk, sender: str, task_id: str, key: str, payload: bytes, receiver: str
) -> None:
    params = wire.CreateParams(remote_key_name=keys.variable_name(task_id, key), payload=payload)
    task = wire.Task(
        protocol_name="remote_storage.create",
        protocol_param=params.SerializeToString(),
        participants=[
            wire.Participant(user_id=sender, role="requester"),
            wire.Participant(user_id=receiver, role="provider"),
        ],
        parent_task=task_id,
        expiration_time=int(time.time()) + _LIFETIME,
    )
    desk.tasks.create(sender, task)
