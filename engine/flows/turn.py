"""One turn: a flow handles one message. Plain functions; what is sent goes to the flow's port."""

import asyncio
import contextvars
import inspect
import traceback
from concurrent.futures import Executor
from pathlib import PurePath
from typing import Any

from engine.flows.calls import at_work
from engine.flows.deadlines import working_on
from engine.flows.failures import failure_data
from engine.flows.flow import INPUT_SCHEMA, Flow
from engine.flows.schemas import check
from engine.model.errors import InvalidMessageError
from engine.model.message import FlowMessage


def runs_async(flow: Flow) -> bool:
    """Tell whether the flow's `run` is a coroutine function, which needs no thread."""
    return inspect.iscoroutinefunction(flow.run)


async def run_turn(flow: Flow, message: FlowMessage, executor: Executor | None = None) -> None:
    """Let `flow` handle `message`; whatever its `run` raises, this raises.

    InvalidMessageError when the message does not fit the flow's interface: it is not run then.

    A plain `run` runs in a thread of `executor` (None: the loop's default one), an `async` one on
    the running loop. No deadline set meanwhile is later than the one of the message that is to be
    answered in the end: for a composite that goes on with a reply, of the one that began its run.
    What it asks carries the path of those who wait (see `engine.flows.calls`).
    """
    schema = flow.interface_schema(INPUT_SCHEMA)
    if schema is not None and not message.is_reply:
        check(schema, message.data, f"The message to {flow.name}")
    caller = flow.caller_of(message)
    with working_on(caller or message), at_work(flow.name, flow.get_instance_id(), caller):
        if runs_async(flow):
            awaitable = flow.run(message)
        else:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            awaitable = await loop.run_in_executor(executor, context.run, flow.run, message)
        if inspect.isawaitable(awaitable):
            await awaitable


def fail_turn(
    flow: Flow,
    message: FlowMessage,
    error: BaseException,
    state: Any = None,
    *,
    flow_endpoint: str = "",
) -> FlowMessage | None:
    """Undo a turn that raised `error`, and return the error reply to send through `flow.port`.

    The flow's state becomes again what it was before: `state` as `Flow.dump_state` gave it, None
    for a new instance. A composite's run that failed while handling a subflow's reply is answered
    to the caller who started it. Returns None when nobody waits, as for an unexpected reply: a
    reply must never be answered to the one who sent it, since its `reply_data` is our own.
    """
    flow.load_state(state)
    caller = flow.caller_of(message)
    flow.end_run(message)
    if caller is None:
        return None
    reply = flow.package_output_message(caller, describe(flow, error, flow_endpoint))
    reply.reply_data["status"] = "error"
    return reply


def describe(flow: Flow, error: BaseException, flow_endpoint: str = "") -> dict[str, Any]:
    """Return the data of an error reply: which flow failed, with what, and where in its code.

    What does not fit an interface is told by the value that does not, not by a place in the code.
    """
    unfit = isinstance(error, InvalidMessageError)
    return failure_data(
        error,
        flow=flow.name,
        user_id=flow.port.user_id if flow.port is not None else "",
        flow_endpoint=flow_endpoint,
        flow_id=flow.get_instance_id(),
        where="" if unfit else _where(error, type(flow).__module__.partition(".")[0]),
    )


def _where(error: BaseException, package: str) -> str:
    """Return `path/in/package.py:line` of the innermost frame in `package`, else the innermost.

    The path begins at the package: where packages are installed is nobody else's business.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [
        entry for entry in frames if entry[0].f_globals.get("__name__", "").split(".")[0] == package
    ]
    if not frames:
        return ""
    frame, line = (own or frames)[-1]
    path = PurePath(frame.f_code.co_filename)
    depth = frame.f_globals.get("__name__", "").count(".") + 1 + (path.name == "__init__.py")
    return f"{'/'.join(path.parts[-depth:])}:{line}"
