"""Flows that do as a script says: for tests of what happens when a subflow does not do its part."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from engine.flows import AtomicFlow, FlowMessage
from engine.flows.turn import describe

Line = dict[str, Any]


def answers(data: Mapping[str, Any], after: float = 0.0) -> Line:
    """Return the line of a script: answer with `data`, `after` seconds."""
    return {"answer": dict(data), "after": after}


def raises(error: Exception, after: float = 0.0) -> Line:
    """Return the line of a script: fail as if `run` had raised `error`, `after` seconds."""
    return {"raise": [type(error).__name__, str(error)], "after": after}


def silent() -> Line:
    """Return the line of a script: never answer."""
    return {}


class ScriptedFlow(AtomicFlow):
    """Treats each message as the next line of `script` in its config says; the last one repeats.

    Lines are made by `answers`, `raises` and `silent`. Its state has what it was sent, in
    `received`. Serve it without `parallel_dispatch`: the state tells how far the script is.
    """

    __default_flow_config: ClassVar[dict[str, Any]] = {
        "name": "ScriptedFlow",
        "description": "Does as its script says.",
        "script": [{"answer": {}}],
    }

    def set_up_flow_state(self) -> None:
        """Begin with nothing received."""
        self.flow_state = {"received": []}

    async def run(self, input_message: FlowMessage) -> None:
        """Do what the next line says."""
        script = self.flow_config["script"]
        line = script[min(len(self.flow_state["received"]), len(script) - 1)]
        self.flow_state["received"].append(input_message.data)
        if line.get("after"):
            await asyncio.sleep(line["after"])
        if "answer" in line:
            self.send_message(self.package_output_message(input_message, line["answer"]))
        elif "raise" in line:
            self._fail(input_message, *line["raise"])

    def _fail(self, message: FlowMessage, kind: str, text: str) -> None:
        """Answer as if `run` had raised; raising would also undo that the line was read."""
        error = type(kind, (Exception,), {})(text)
        reply = self.package_output_message(message, describe(self, error))
        reply.reply_data["status"] = "error"
        self.send_message(reply)
