"""Flow classes that tests serve as those of a plugin `test`."""

import asyncio
import os
import sys
import threading
from collections import Counter as Counting
from typing import Any, ClassVar

from engine.flows import AtomicFlow, CompositeFlow, FlowMessage
from engine.model.errors import CallCancelledError


class Counter(AtomicFlow):
    """Counts its messages; plain."""

    __default_flow_config: ClassVar[dict[str, Any]] = {
        "name": "Counter",
        "description": "",
        "step": 1,
        "label": "",
        "deep": {"a": 1},
    }

    def set_up_flow_state(self) -> None:
        self.flow_state = {"count": 0}

    def run(self, input_message: FlowMessage) -> None:
        self.flow_state["count"] += self.flow_config["step"]
        data = {"count": self.flow_state["count"], "label": self.flow_config["label"]}
        self.send_message(self.package_output_message(input_message, data))


class AsyncCounter(Counter):
    """The same, async."""

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().run(input_message)


class Faulty(AtomicFlow):
    """Fails in the way that `fault` names, after it has changed its state."""

    __default_flow_config = {"name": "Faulty", "description": ""}  # noqa: RUF012

    def set_up_flow_state(self) -> None:
        self.flow_state = {"runs": 0}

    def run(self, input_message: FlowMessage) -> None:
        self.flow_state["runs"] += 1
        fault = input_message.data.get("fault")
        if fault == "raise":
            raise ValueError("no such number")
        if fault == "exit":
            sys.exit(3)
        if fault == "stop":
            next(iter(()))
        if fault == "state":
            self.flow_state["lock"] = threading.Lock()
        if fault == "message":
            self.send_message(self.package_output_message(input_message, {"x": {1, 2}}))
        data = {"runs": self.flow_state["runs"]}
        self.send_message(self.package_output_message(input_message, data))


class AsyncFaulty(Faulty):
    """The same, async; `hang` never ends, `cancel` cancels itself."""

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        if input_message.data.get("fault") == "hang":
            self.flow_state["runs"] += 1
            await asyncio.Event().wait()
        if input_message.data.get("fault") == "cancel":
            raise asyncio.CancelledError
        super().run(input_message)


class Unbuildable(AtomicFlow):
    """Cannot be set up."""

    __default_flow_config = {"name": "Unbuildable", "description": ""}  # noqa: RUF012

    def set_up_flow_state(self) -> None:
        raise OSError("no disk")


class Blocking(CompositeFlow):
    """Asks its subflow and blocks until the answer is there; plain."""

    __default_flow_config = {  # noqa: RUF012
        "name": "Blocking",
        "description": "",
        "subflows_config": {"below": {"user_id": "local", "flow_endpoint": "below"}},
    }

    def run(self, input_message: FlowMessage) -> None:
        below = self.subflows["below"]
        future = below.get_reply_future(self.package_input_message(input_message.data))
        data = future.get_data(input_message.data.get("wait"))
        self.send_message(self.package_output_message(input_message, {"below": data}))


class Awaiting(Blocking):
    """Asks its subflow several times at once and awaits the answers; async."""

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        below = self.subflows["below"]

        async def one(_: int) -> Any:
            return await below.get_reply_future(self.package_input_message(input_message.data))

        answers = await asyncio.gather(*(one(number) for number in range(3)))
        self.send_message(self.package_output_message(input_message, {"below": answers}))


class Telling(CompositeFlow):
    """Sends its subflow two messages that nobody answers, and tells the caller at once."""

    __default_flow_config = Blocking._Blocking__default_flow_config  # type: ignore[attr-defined]

    def run(self, input_message: FlowMessage) -> None:
        for _ in range(2):
            self.subflows["below"].send_message(self.package_input_message({}))
        self.send_message(self.package_output_message(input_message, {"told": 2}))


class Secretive(AtomicFlow):
    """Answers with how long its key is."""

    __default_flow_config = {"name": "Secretive", "description": "", "key": "none"}  # noqa: RUF012

    def run(self, input_message: FlowMessage) -> None:
        data = {"length": len(self.flow_config["key"])}
        self.send_message(self.package_output_message(input_message, data))


class Gate(Counter):
    """Counts, after it has waited until the test lets it go on."""

    started: ClassVar[asyncio.Event]
    go_on: ClassVar[asyncio.Event]

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        self.started.set()
        await self.go_on.wait()
        super().run(input_message)


class Stuck(Counter):
    """Counts, but the first time in a process that is told so it says so and never ends."""

    def run(self, input_message: FlowMessage) -> None:
        if os.environ.get("STUCK"):
            print("running", flush=True)
            threading.Event().wait()
        super().run(input_message)


class Flaky(Counter):
    """Counts, tells its subflow, and fails as often as the message says, each time anew."""

    tries: ClassVar[Counting[str]] = Counting()

    def run(self, input_message: FlowMessage) -> None:
        self.tries[input_message.message_id] += 1
        self.send_message(self.package_output_message(input_message, {"count": "never sent"}))
        if self.tries[input_message.message_id] <= input_message.data.get("failures", 0):
            self.flow_state["count"] += 100
            raise ValueError(f"attempt {self.tries[input_message.message_id]}")
        assert self.port is not None
        self.port.outbox.clear()  # type: ignore[attr-defined]
        super().run(input_message)


class AsyncFlaky(Flaky):
    """The same, async."""

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().run(input_message)


class Endless(AtomicFlow):
    """Never ends by itself; `started` and `ended` tell the test."""

    __default_flow_config = {"name": "Endless", "description": ""}  # noqa: RUF012
    started: ClassVar[asyncio.Event]
    ended: ClassVar[asyncio.Event]

    def set_up_flow_state(self) -> None:
        self.flow_state = {"runs": 0}

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        self.flow_state["runs"] += 1
        if input_message.data.get("quick"):
            self.send_message(self.package_output_message(input_message, dict(self.flow_state)))
            return
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


class Diary(Counter):
    """Writes down what each message says, in the order in which they come; waits like a Gate."""

    __default_flow_config: ClassVar[dict[str, Any]] = {"name": "Diary", "description": ""}

    def set_up_flow_state(self) -> None:
        self.flow_state = {"pages": []}

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        if input_message.data.get("wait"):
            Gate.started.set()
            await Gate.go_on.wait()
        self.flow_state["pages"].append(input_message.data["page"])
        self.send_message(self.package_output_message(input_message, dict(self.flow_state)))


class Tallying(CompositeFlow):
    """Counts, tells its subflow of each message, and answers with its count."""

    __default_flow_config = Blocking._Blocking__default_flow_config  # type: ignore[attr-defined]

    def set_up_flow_state(self) -> None:
        self.flow_state = {"count": 0}

    def run(self, input_message: FlowMessage) -> None:
        self.flow_state["count"] += 1
        self.subflows["below"].send_message(self.package_input_message({}))
        self.send_message(self.package_output_message(input_message, dict(self.flow_state)))


class Cancelling(Blocking):
    """Asks its subflow, and once that has started gives the question up, or fails."""

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        future = self.subflows["below"].get_reply_future(self.package_input_message({}))
        await Endless.started.wait()
        if input_message.data.get("fail"):
            raise ValueError("after it has asked")
        future.cancel()
        try:
            await future
        except CallCancelledError as error:
            data = {"waited": type(error).__name__}
            self.send_message(self.package_output_message(input_message, data))


class Stepping(Blocking):
    """Asks its subflow twice, one step after the other; tells who looks how many runs wait."""

    def run(self, input_message: FlowMessage) -> None:
        if input_message.data.get("look"):
            data = {"waiting": len(self.flow_state.get("pending_runs", {}))}
            self.send_message(self.package_output_message(input_message, data))
            return
        if not input_message.is_reply:
            self.ask_subflow("below", {"step": 1}, caller=input_message)
            return
        run = self.resume(input_message)
        self.ask_subflow("below", {"step": 2}, caller=run.message)


ALL = [
    *(Cancelling, Stepping),
    *(Diary, Tallying),
    *(Flaky, AsyncFlaky, Endless),
    *(Gate, Stuck),
    *(Counter, AsyncCounter, Faulty, AsyncFaulty, Unbuildable),
    *(Blocking, Awaiting, Telling, Secretive),
]
