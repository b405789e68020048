"""§8.4: variables from peer to peer, into the inbox of the stock SDK.

The SDK's inbox uses what Python 3.12 has dropped, and warns of it before: so it gets a process.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator

import pytest

from engine.colink import keys
from engine.colink.mailbox import encode_push
from engine.core.operators.inboxes import Inbox
from tests.support.stock import VtP2pCtx, blocking, sdk, stock_user

needs_inbox = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="the SDK's inbox does not start on Python 3.12"
)
_RECEIVER = """
import sys
import colink as CL
address, jwt, protocol = sys.argv[1:]
operator = CL.ProtocolOperator(__name__)

@operator.handle(protocol + ":receiver")
def receive(cl, param, participants):
    cl.create_entry("got", cl.recv_variable("msg", participants[0]))

operator.run(CL.CoLink(address, jwt), False, "127.0.0.1")
"""


@contextlib.asynccontextmanager
async def _receiving(core, user, protocol: str) -> AsyncIterator[None]:
    """Run a stock operator for `user` that takes the variable `msg` and stores it as `got`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", _RECEIVER, core.address, user.jwt, protocol)
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def _two(sender, receiver):
    return [
        sdk.Participant(user_id=sender.get_user_id(), role="initiator"),
        sdk.Participant(user_id=receiver.get_user_id(), role="receiver"),
    ]


async def _inbox(sender, receiver, task_id: str) -> dict:
    name = keys.variable(receiver.get_user_id(), task_id, "inbox")
    return json.loads(await blocking(sender.read_or_wait, name))


@needs_inbox
async def test_the_sdk_posts_into_the_sdks_inbox(core, alice, bob) -> None:
    async with _receiving(core, bob, "greet"):
        task_id = await blocking(alice.run_task, "greet", b"", _two(alice, bob), True)
        alice.set_task_id(task_id)
        alice.vt_p2p_ctx = VtP2pCtx()
        alice.send_variable("msg", b"value" * 10**5, [_two(alice, bob)[1]])
        assert await blocking(bob.read_or_wait, "got") == b"value" * 10**5
        inbox = await _inbox(alice, bob, task_id)
        assert inbox["addr"].startswith("https://127.0.0.1:")
        stored = keys.variable(alice.get_user_id(), task_id, "msg")
        assert await blocking(bob.read_entry, stored) is None, "it did not go through the core"


@needs_inbox
@pytest.mark.ours  # the sender is built in
async def test_the_scheduler_posts_a_push_into_the_sdks_inbox(core, bob) -> None:
    ann = await stock_user(core, "coflows_scheduler")
    await blocking(ann.create_entry, "push_tasks:m1:msg", b"pushed")
    async with _receiving(core, bob, "coflows_push"):
        param = encode_push("flow", "push_tasks:m1:msg")
        await blocking(ann.run_task, "coflows_push", param, _two(ann, bob), True)
        assert await blocking(bob.read_or_wait, "got") == b"pushed"


@pytest.mark.ours
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"addr": null, "vt_jwt": null, "tls_cert": null}',
        b'{"addr": "", "vt_jwt": "", "tls_cert": []}',
        b'{"addr": "http://127.0.0.1:1", "vt_jwt": "t", "tls_cert": [1]}',
        b'{"addr": "https://127.0.0.1:1", "vt_jwt": "a\\nb: c", "tls_cert": [1]}',
        b'{"addr": "https://127.0.0.1:1", "vt_jwt": "t", "tls_cert": [999]}',
        b'{"addr": "https://127.0.0.1:1", "vt_jwt": "t", "tls_cert": 9}',
    ],
)
def test_what_is_no_inbox_is_none(payload: bytes) -> None:
    assert Inbox.parse(payload) is None
