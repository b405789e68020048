"""CompositeFlow: a flow that asks other flows, and keeps its callers apart while it waits.

A composite handles one message at a time and waits for nothing: it asks a subflow, returns, and is
run again when the answer comes. Between the two, messages of other callers may come in. So each
question is remembered in `flow_state` under the `input_message_id` that its answer will carry.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from engine.flows.config import Config
from engine.flows.flow import AtomicFlow, Flow
from engine.flows.port import FlowPort
from engine.model.errors import FlowFailedError, UsageError
from engine.model.message import FlowMessage

_PENDING = "pending_runs"


@dataclass(frozen=True)
class PendingRun:
    """A run that asked a subflow and can now go on.

    `message` is the one that started the run, `subflow` the key of the subflow that answered,
    `notes` what the author gave to `ask_subflow` to have it back here.
    """

    message: FlowMessage
    subflow: str
    notes: Mapping[str, Any] = field(default_factory=dict)


class CompositeFlow(Flow):
    """A flow with subflows: `subflows` maps each key of `subflows_config` to a proxy of it."""

    REQUIRED_KEYS_CONFIG: ClassVar[list[str]] = ["subflows_config"]

    def __init__(
        self,
        flow_config: Config,
        subflows: Mapping[str, AtomicFlow] | None = None,
        port: FlowPort | None = None,
    ) -> None:
        super().__init__(flow_config=flow_config, port=port)
        self.subflows = dict(_proxies(flow_config) if subflows is None else subflows)

    @classmethod
    def type(cls) -> str:
        """Return what kind of flow this is, by name."""
        return "CompositeFlow"

    @classmethod
    def _constructor_arguments(cls, config: Config) -> dict[str, Any]:
        return {"flow_config": config, "subflows": _proxies(config)}

    def set_port(self, port: FlowPort | None) -> None:
        """Give the flow and its subflows the port through which they send."""
        super().set_port(port)
        for subflow in self.subflows.values():
            subflow.set_port(port)

    def ask_subflow(
        self, subflow: str, data: Mapping[str, Any], caller: FlowMessage, **notes: Any
    ) -> None:
        """Send `data` to the subflow and remember that it is for the run that `caller` started.

        The answer comes as a message of its own; `resume` then gives back `caller` and `notes`
        (which must be fit for a flow's state). Raises UsageError for an unknown subflow, and when
        the state is not kept, so that the answer could not be matched to its caller.
        """
        if not self.keeps_state:
            raise UsageError(
                f"{self.name} is served with parallel_dispatch and keeps no state, which "
                "ask_subflow needs.",
                "Use get_reply_future, or serve it with parallel_dispatch: false.",
            )
        if subflow not in self.subflows:
            raise UsageError(
                f"{self.name} has no subflow {subflow!r}.", f"It has: {', '.join(self.subflows)}."
            )
        question = self.package_input_message(data)
        self._forget_overdue()
        pending = self.flow_state.setdefault(_PENDING, {})
        pending[question.input_message_id] = {
            "message": caller,
            "subflow": subflow,
            "notes": copy.deepcopy(notes),
        }
        self.subflows[subflow].get_reply(question)

    def resume(self, reply: FlowMessage) -> PendingRun:
        """Return the run that `reply` belongs to, and forget it.

        Raises FlowFailedError, naming the subflow, when `reply` is an error reply: let it pass, and
        the run's caller gets an error reply. Raises UsageError when no run waits for `reply`, as
        with an answer that comes twice.
        """
        run = self.take_run(reply)
        if run is None:
            raise UsageError(f"{self.name} got a reply that no run waits for.")
        if reply.failed:
            raise FlowFailedError(
                f"the subflow {run.subflow} failed: {reply.data.get('error')}",
                reply.data,
                run.subflow,
            )
        return run

    def take_run(self, reply: FlowMessage) -> PendingRun | None:
        """Return the run that `reply`, an error reply or not, belongs to, and forget it.

        Returns None when no run waits for it.
        """
        entry = self._pending().pop(reply.input_message_id, None)
        return None if entry is None else PendingRun(**entry)

    def caller_of(self, message: FlowMessage) -> FlowMessage | None:
        """Return the message itself, or for a subflow's reply the one that started the run."""
        if not message.is_reply:
            return message
        entry = self._pending().get(message.input_message_id)
        return None if entry is None else cast(FlowMessage, entry["message"])

    def end_run(self, message: FlowMessage) -> None:
        """Forget the run that waits for the reply `message`."""
        if message.is_reply:
            self._pending().pop(message.input_message_id, None)

    def _pending(self) -> dict[str | None, dict[str, Any]]:
        return cast(dict[str | None, dict[str, Any]], self.flow_state.get(_PENDING, {}))

    def _forget_overdue(self) -> None:
        """Drop runs whose callers have stopped waiting, so that lost answers do not pile up."""
        now = time.time()
        pending = self._pending()
        for key, entry in list(pending.items()):
            deadline = entry["message"].deadline
            if deadline is not None and deadline < now:
                del pending[key]


def _proxies(config: Mapping[str, Any]) -> dict[str, AtomicFlow]:
    """Return a proxy for each configured subflow, named by its key (§9.10)."""
    return {
        key: AtomicFlow.instantiate_from_config(
            AtomicFlow.get_config(**{"description": "", **subflow, "name": key})
        )
        for key, subflow in config.get("subflows_config", {}).items()
    }
