"""Variables of running tasks, between users of this core (§8.4, remote-storage form).

A sender's value is written straight into the receiver's storage. A peer whose operator runs outside
the core notices nothing: he finds the entries that remote_storage would have made for him.
"""

from collections.abc import Callable

from engine.colink import keys
from engine.colink.payloads import json_bytes
from engine.core.operators.base import Desk

# The empty form is understood by both SDKs: "no direct way to me".
_KIND = "_variable_transfer"
_INBOX = json_bytes({"addr": "", "vt_jwt": "", "tls_cert": []})


def inbox_of(name: str) -> str:
    """Return the task whose variable `inbox` an entry of remote_storage is; "" for others."""
    kind, _, rest = name.partition(":")
    task_id, _, key = rest.partition(":")
    return task_id if (kind, key) == (_KIND, "inbox") else ""


def send(desk: Desk, sender: str, task_id: str, key: str, payload: bytes, receiver: str) -> None:
    """Give `receiver` a variable, unless he has it already."""
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
) -> None:
    """Call `then` with a variable, now or as an effect of its arrival.

    A sender outside the core waits to be told how to reach the receiver: so that is written first.
    """
    name = keys.variable(sender, task_id, key)
    payload = desk.entries.get(receiver, name)
    if payload is not None:
        then(payload)
        return
    desk.entries.watch(receiver, name, lambda value: desk.effects.add(lambda: then(value)))
    if sender in desk.users:
        send(desk, receiver, task_id, "inbox", _INBOX, sender)
