"""Workers that die or are overtaken: the message is handled once all the same."""

import asyncio

import pytest

from engine.colink import keys
from engine.core.server import Core
from engine.serving import endpoints
from engine.serving.mounting import Record
from engine.workers import dispatch
from tests.support.flows import Gate
from tests.support.network import members, network
from tests.support.processes import said, worker_process


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_killed_workers_message_is_handled_by_another(core: Core, parallel: bool) -> None:
    async with members(core, 1) as (user,):
        await endpoints.serve(user.client, "ep", "test.Stuck", parallel_dispatch=parallel)
        instance = await user.instance("ep")
        async with worker_process(user, STUCK="1") as process:
            asking = asyncio.create_task(user.ask(instance, {}, timeout=60))
            assert await said(process) == "running"
            process.kill()
        async with worker_process(user):
            assert (await asking).data["count"] == 1
            assert (await user.ask(instance, {})).data["count"] == (1 if parallel else 2)


async def test_a_worker_that_was_overtaken_in_a_long_run_changes_nothing(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_LONG", 0.0)
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    async with network(core, 1, get_instance=False) as (user,):
        await endpoints.serve(user.client, "ep", "test.Gate")
        instance = await user.instance("ep")
        asking = asyncio.create_task(user.ask(instance, {}, timeout=3))
        await Gate.started.wait()
        state = keys.mount_field("ep", "local", instance.flow_id, "state")
        meanwhile = Record({"count": 7}, ("push_tasks:somebody:msg",)).encode()
        await user.client.update(state, meanwhile)
        Gate.go_on.set()
        await asyncio.wait((asking,))
        assert asking.exception() is not None
        assert await user.client.read(state) == meanwhile
        assert (await user.ask(instance, {})).data["count"] == 8
