"""Declared composites and awaiting ones on a real core, with one worker for all of them."""

import asyncio
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from engine.core.server import Core
from engine.flows import AtomicFlow, CompositeFlow, FlowMessage
from engine.serving import endpoints
from engine.serving.instances import Instance, set_overrides
from tests.support.network import Member, members, working


class Adding(AtomicFlow):
    """Adds one; the event tells that it was asked."""

    asked: ClassVar[list[str]] = []
    happened: ClassVar[asyncio.Event]

    async def run(self, input_message: FlowMessage) -> None:
        self.asked.append(self.flow_config["label"])
        self.happened.set()
        output = {"n": input_message.data["n"] + 1}
        self.send_message(self.package_output_message(input_message, output))

    __default_flow_config: ClassVar[dict[str, Any]] = {"name": "A", "description": "", "label": ""}


class Deeper(CompositeFlow):
    """Asks the subflow `below`, which it may have or not, and adds one; awaits."""

    __default_flow_config: ClassVar[dict[str, Any]] = {
        "name": "Deeper",
        "description": "",
        "subflows_config": {},
    }

    async def run(self, input_message: FlowMessage) -> None:
        depth = 0
        if self.subflows:
            depth = (await self.subflows["below"].ask({}))["depth"]
        self.send_message(self.package_output_message(input_message, {"depth": depth + 1}))


class Blocking(Deeper):
    """The same; holds its thread while it waits."""

    def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        depth = 0
        if self.subflows:
            question = self.package_input_message({})
            depth = self.subflows["below"].get_reply_future(question).get_data()["depth"]
        self.send_message(self.package_output_message(input_message, {"depth": depth + 1}))


CLASSES = {"local.Adding": Adding, "local.Deeper": Deeper, "local.Blocking": Blocking}


@pytest.fixture(autouse=True)
def fresh_events() -> None:
    Adding.asked.clear()
    Adding.happened = asyncio.Event()


def knowing(user: Member) -> Member:
    """Return the user with the classes of this module in his catalog."""
    catalog = user.catalog
    classes = {**catalog.flow_classes, **CLASSES}
    return Member(user.client, replace(catalog, flow_classes=classes))


def below(**subflows: str) -> dict[str, Any]:
    """Return the config of subflows, by key their own endpoint."""
    return {
        "subflows_config": {
            key: {"user_id": "local", "flow_endpoint": endpoint}
            for key, endpoint in subflows.items()
        }
    }


async def turns_done(user: Member, instance: Instance, count: int) -> None:
    """Wait until the instance has committed so many turns; of a commit there is no event."""
    async with asyncio.timeout(20):
        while len((await user.record(instance))["done"]) < count:
            await asyncio.sleep(0.01)


async def test_a_run_taken_up_after_a_workers_end_repeats_no_step(core: Core) -> None:
    async with members(core, 1) as users:
        user = knowing(users[0])
        steps = {"a": "a", "b": "b", "c": "c"}
        for endpoint in steps:
            # The second step is at a dispatch point where nobody works yet.
            point = "dispatch_later" if endpoint == "b" else "coflows_dispatch"
            await endpoints.serve(user.client, endpoint, "local.Adding", dispatch_point=point)
        await endpoints.serve(user.client, "line", "engine.SequentialFlow")
        config = {"topology": ["a", "b", "c"], **below(**steps)}
        for key in steps:
            config["subflows_config"][key]["label"] = key
        line = await user.instance("line", config_overrides=config)
        options: dict[str, Any] = {"get_instance": False}
        async with working(user.client, user.catalog, **options):
            asking = asyncio.create_task(user.ask(line, {"n": 0}))
            await Adding.happened.wait()
            other = await user.instance("a", config_overrides={"label": "other"})
            assert (await user.ask(other, {"n": 1})).data == {"n": 2}, "the worker is not held"
            await turns_done(user, line, 2)
        assert not asking.done()
        later = working(user.client, user.catalog, dispatch_point="dispatch_later", **options)
        async with later, working(user.client, user.catalog, **options):
            assert (await asking).data == {"n": 3}
        assert [label for label in Adding.asked if label != "other"] == ["a", "b", "c"]


@pytest.mark.parametrize("class_name", ["local.Deeper", "local.Blocking", "engine.SequentialFlow"])
async def test_twenty_levels_need_one_worker(core: Core, class_name: str) -> None:
    async with members(core, 1) as users:
        user = knowing(users[0])
        await endpoints.serve(user.client, "level0", "local.Deeper")
        for level in range(1, 20):
            await endpoints.serve(user.client, f"level{level}", class_name)
        config: dict[str, Any] = {}
        for level in range(20):
            if level:
                subflow = {"user_id": "local", "flow_endpoint": f"level{level - 1}", **config}
                config = {"subflows_config": {"below": subflow}}
                if class_name.startswith("engine."):
                    config["topology"] = ["below"]
        top = await user.instance("level19", config_overrides=config)
        async with working(user.client, user.catalog, get_instance=False):
            depth = 1 if class_name.startswith("engine.") else 20
            assert (await user.ask(top, {})).data == {"depth": depth}


async def test_instances_that_would_wait_for_each_other_are_told_the_path(core: Core) -> None:
    async with members(core, 1) as users:
        user = knowing(users[0])
        for endpoint in ("a", "b"):
            await endpoints.serve(user.client, endpoint, "local.Deeper")
        first = await user.instance("a")
        wiring = {"below": {"user_id": "local", "flow_id": first.flow_id}}
        named = {"name": "B", "subflows_config": wiring}
        second = await user.instance("b", config_overrides=named)
        back = {"below": {"user_id": "local", "flow_id": second.flow_id}}
        named = {"name": "A", "subflows_config": back}
        await set_overrides(user.client, user.catalog, first.flow_id, named)
        async with working(user.client, user.catalog, get_instance=False):
            reply = await user.ask(first, {})
            assert reply.failed
            assert "would wait for itself: A -> B -> A" in reply.data["error"]
            assert reply.data["step_path"] == ["below"]
