"""Flow and AtomicFlow: what every flow has, and what flow authors derive from.

A flow handles one message at a time in `run`. It never talks to a core itself: everything it sends
goes through its port. Names and message fields are those of aiflows 1.1.1 (protocol sheet §9.6).
"""

import copy
import os
from collections.abc import Awaitable, Mapping
from typing import Any, ClassVar, Self

from engine.flows import schemas
from engine.flows.calls import CALL_PATH, path_to
from engine.flows.config import Config, lay_over, own_defaults
from engine.flows.deadlines import deadline_after
from engine.flows.futures import FlowFuture
from engine.flows.port import FlowPort
from engine.flows.state import decode_state, encode_state
from engine.kits.digest import canonical_json
from engine.model.errors import FlowFailedError, UsageError
from engine.model.ids import LOCAL
from engine.model.message import NO_REPLY, FlowMessage
from engine.model.secrets import resolve

INPUT_SCHEMA = "input_schema"
OUTPUT_SCHEMA = "output_schema"
_UNKNOWN = "unknown"
_PRIVATE = ["name", "description", "api_keys", "api_information", "private_keys"]


class Flow:
    """Base of all flows: configuration, state, and the packaging and sending of messages.

    `flow_config` is the complete configuration (JSON data); `flow_state` is what the instance keeps
    from one message to the next (see `engine.flows.state` for what it may hold); `port` is None
    until the flow is to send something. Whoever runs the flow sets `keeps_state` to False when the
    state will not be stored, as with `parallel_dispatch`.

    `input_schema` and `output_schema` say what messages and answers look like (see
    `engine.flows.schemas`); None: anything. Keys of that name in the configuration count more: the
    server sets them, for his endpoint.
    """

    keeps_state: bool = True

    input_schema: ClassVar[Mapping[str, Any] | None] = None
    output_schema: ClassVar[Mapping[str, Any] | None] = None

    REQUIRED_KEYS_CONFIG: ClassVar[list[str]] = ["name", "description"]

    __default_flow_config: ClassVar[Config] = {
        "private_keys": [],
        "keys_to_ignore_for_hash_flow_config": _PRIVATE,
        "keys_to_ignore_for_hash_flow_state": _PRIVATE,
        "keys_to_ignore_for_hash_input_data": [],
        "clear_flow_namespace_on_run_end": True,
        "enable_cache": False,
    }

    flow_state: dict[str, Any]

    def __init__(self, flow_config: Config, port: FlowPort | None = None) -> None:
        missing = [key for key in self.REQUIRED_KEYS_CONFIG if key not in flow_config]
        if missing:
            raise UsageError(
                f"The configuration of a {type(self).__name__} lacks {', '.join(missing)}.",
                f"Put it into {type(self).__name__}.yaml or into the overrides.",
            )
        self.flow_config = flow_config
        self.port = port
        self.set_up_flow_state()

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Write out the class's schemas; UsageError when one of them is none."""
        super().__init_subclass__(**arguments)
        for name in (INPUT_SCHEMA, OUTPUT_SCHEMA):
            if vars(cls).get(name) is not None:
                setattr(cls, name, schemas.expanded(vars(cls)[name]))

    # --- making one -------------------------------------------------------------------------

    @classmethod
    def get_config(cls, **overrides: Any) -> Config:
        """Return the class's defaults merged along its base classes, under `overrides` (§9.2).

        Values from the environment stay `{"$env": expression}`. Raises PluginError when a YAML
        file is broken.
        """
        base = next((base for base in cls.__bases__ if issubclass(base, Flow)), None)
        config = {} if base is None else base.get_config()
        return lay_over(lay_over(config, own_defaults(cls)), copy.deepcopy(overrides))

    @classmethod
    def instantiate_from_config(
        cls, config: Mapping[str, Any], port: FlowPort | None = None
    ) -> Self:
        """Return a flow with a copy of the complete configuration `config`.

        Raises UsageError when a required key is missing. `_target_` is data; nothing follows it.
        """
        flow = cls(**cls._constructor_arguments(copy.deepcopy(dict(config))))
        flow.set_port(port)
        return flow

    @classmethod
    def instantiate_from_default_config(cls, **overrides: Any) -> Self:
        """Return a flow with the class's defaults under `overrides`.

        What they take from the environment is taken now; NotFoundError when it is not there.
        """
        return cls.instantiate_from_config(resolve(cls.get_config(**overrides), os.environ))

    @classmethod
    def _constructor_arguments(cls, config: Config) -> dict[str, Any]:
        return {"flow_config": config}

    def set_port(self, port: FlowPort | None) -> None:
        """Give the flow the port through which it sends."""
        self.port = port

    # --- what it is and keeps -----------------------------------------------------------------

    @property
    def name(self) -> str:
        """The flow's name, which its messages carry as `src_flow`; by default its class's."""
        return str(self.flow_config.get("name", type(self).__name__))

    @classmethod
    def type(cls) -> str:
        """Return what kind of flow this is, by name."""
        return "Flow"

    def get_instance_id(self) -> str:
        """Return the flow id of the instance; `unknown` when it is not mounted."""
        return str(self.flow_config.get("flow_id", _UNKNOWN))

    def get_interface_description(self) -> dict[str, Any]:
        """Return the configured `input_interface` and `output_interface` as `input`, `output`."""
        return {
            "input": self.flow_config.get("input_interface"),
            "output": self.flow_config.get("output_interface"),
        }

    def interface_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return the `input_schema` or `output_schema` of this flow, None when there is none."""
        configured = self.flow_config.get(name)
        if configured is None:
            found: Mapping[str, Any] | None = getattr(self, name)
            return found
        return schemas.expanded_once(canonical_json(configured))

    def set_up_flow_state(self) -> None:
        """Set `flow_state` to what a new instance starts with; authors override this."""
        self.flow_state = {}

    def get_flow_state(self) -> dict[str, Any]:
        """Return the flow's state."""
        return self.flow_state

    def load_state(self, state: Any) -> None:
        """Start afresh, then lay `state` (JSON data of `dump_state`, or None) over it.

        Raises UsageError when `state` cannot be decoded.
        """
        self.set_up_flow_state()
        if state is not None:
            self.flow_state |= decode_state(state, type(self))

    def dump_state(self) -> Any:
        """Return `flow_state` as JSON data. Raises UsageError naming a value that cannot be."""
        return encode_state(self.flow_state, type(self))

    # --- what authors write -------------------------------------------------------------------

    def run(self, input_message: FlowMessage) -> Awaitable[None] | None:
        """Handle one message; plain or `async`. Authors write this.

        An exception that leaves it ends the call: whoever waits gets an error reply.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run method.")

    def caller_of(self, message: FlowMessage) -> FlowMessage | None:
        """Return the message whose sender waits while `message` is handled; None if nobody does.

        That is the message itself, unless it is a reply.
        """
        return None if message.is_reply else message

    def end_run(self, message: FlowMessage) -> None:
        """Forget what is kept for the run to which `message` belongs; called when it failed."""

    # --- messages -----------------------------------------------------------------------------

    def package_input_message(
        self,
        data: Mapping[str, Any],
        dst_flow: str = _UNKNOWN,
        reply_data: Mapping[str, Any] | None = None,
    ) -> FlowMessage:
        """Return a new message of this flow with a copy of `data`; it is not sent yet."""
        return FlowMessage(
            data=copy.deepcopy(dict(data)),
            private_keys=self._private_keys(),
            src_flow=self.name,
            src_flow_id=self.get_instance_id(),
            dst_flow=dst_flow,
            reply_data=dict(NO_REPLY if reply_data is None else reply_data),
            created_by=self.name,
            user_id=self._user_id(),
        )

    def package_output_message(
        self, input_message: FlowMessage, response: Mapping[str, Any] | FlowMessage
    ) -> FlowMessage:
        """Return the reply to `input_message` with a copy of `response`; it is not sent yet."""
        data = response.data if isinstance(response, FlowMessage) else response
        reply_data = dict(input_message.reply_data)
        reply_data.pop("status", None)
        return FlowMessage(
            data=copy.deepcopy(dict(data)),
            private_keys=self._private_keys(),
            src_flow=self.name,
            src_flow_id=self.get_instance_id(),
            dst_flow=input_message.src_flow,
            reply_data=reply_data,
            created_by=self.name,
            input_message_id=input_message.input_message_id,
            is_reply=True,
            user_id=self._user_id(),
        )

    def send_message(self, message: FlowMessage) -> None:
        """Send a reply to whoever asked, anything else to the instance that this object stands for.

        Raises UsageError when the flow has no port, InvalidMessageError when an answer does not fit
        the flow's interface.
        """
        port = self._port_to_send()
        if message.is_reply:
            schema = self.interface_schema(OUTPUT_SCHEMA)
            if schema is not None and not message.failed:
                schemas.check(schema, message.data, f"The answer of {self.name}")
            port.reply(message)
        else:
            port.push(*self._address(), message)

    def get_reply(self, message: FlowMessage, timeout: float | None = None) -> None:
        """Send `message` to the instance that this object stands for.

        The answer is pushed, as a message of its own, to the flow whose id is `message.src_flow_id`
        (the flow that packaged it). It is not waited for longer than `timeout` seconds.
        """
        port = self._port_to_send()
        reply_to = {"mode": "push", "user_id": port.user_id, "flow_id": message.src_flow_id}
        port.push(*self._address(), self._request(message, reply_to, timeout))

    def get_reply_future(self, message: FlowMessage, timeout: float | None = None) -> FlowFuture:
        """Send `message` to the instance that this object stands for; return its answer's future.

        `timeout` is in seconds, 60 by default, never beyond the deadline of the message at work.
        """
        port = self._port_to_send()
        reply_to = {"mode": "storage", "user_id": port.user_id}
        request = self._request(message, reply_to, timeout)
        response_key = port.future(*self._address(), request)
        return FlowFuture(port, response_key, request.reply_data["deadline"])

    async def ask(self, data: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send `data` to the instance that this object stands for and return its answer's data.

        `timeout` is in seconds, by default what the message at work has left. Raises
        FlowFailedError, naming this flow, for an error reply, and DeadlineExceededError.
        """
        future = self.get_reply_future(self.package_input_message(data), timeout)
        try:
            return await future
        except FlowFailedError as error:
            raise FlowFailedError(
                f"the subflow {self.name} failed: {error}", error.details, self.name
            ) from error

    def _request(
        self, message: FlowMessage, reply_to: dict[str, Any], timeout: float | None
    ) -> FlowMessage:
        reply_data = {**reply_to, "deadline": deadline_after(timeout)}
        call_path = path_to(self.name, self.get_instance_id())
        if call_path:
            reply_data[CALL_PATH] = call_path
        return FlowMessage(
            data=message.data,
            private_keys=message.private_keys,
            src_flow=self.name,
            src_flow_id=message.src_flow_id,
            dst_flow=self.get_instance_id(),
            reply_data=reply_data,
            created_by=self.name,
            input_message_id=message.input_message_id,
            user_id=self._user_id(),
        )

    def _private_keys(self) -> list[str]:
        return list(self.flow_config.get("private_keys", ()))

    def _user_id(self) -> str | None:
        return None if self.port is None else self.port.user_id

    def _port_to_send(self) -> FlowPort:
        if self.port is None:
            raise UsageError(
                f"{self.name} cannot send: it is not connected to anything.",
                "Get it with get_flow_instance, or give it a port with set_port.",
            )
        return self.port

    def _address(self) -> tuple[str, str]:
        if "flow_id" not in self.flow_config:
            raise UsageError(f"{self.name} is no instance that could get a message: no flow_id.")
        return str(self.flow_config.get("user_id", LOCAL)), self.get_instance_id()


class AtomicFlow(Flow):
    """A flow without subflows. As it stands, it serves as proxy of an instance somewhere else."""

    @classmethod
    def type(cls) -> str:
        """Return what kind of flow this is, by name."""
        return "AtomicFlow"


def proxy(
    flow_endpoint: str, flow_id: str, port: FlowPort | None = None, user_id: str = LOCAL
) -> AtomicFlow:
    """Return an object that stands for the instance `flow_id` served by `user_id` (§9.10).

    The own user's id counts as `local`.
    """
    if port is not None and user_id == port.user_id:
        user_id = LOCAL
    config = AtomicFlow.get_config(
        name=f"Proxy_{flow_endpoint}",
        description=f"Proxy of {flow_endpoint}",
        user_id=user_id,
        flow_id=flow_id,
        flow_endpoint=flow_endpoint,
    )
    return AtomicFlow.instantiate_from_config(config, port)
