"""Three flows: one that does the work, one that asks it twice, one that asks it many times."""

from collections.abc import Mapping
from typing import Any

from engine.flows import AtomicFlow, CompositeFlow, FlowMessage


class ReverseNumberAtomicFlow(AtomicFlow):
    """Reverses the digits of `number`; the sign stays in front.

    Input `{"number": int}`, output `{"output_number": int}`. It keeps no state, so it can be served
    with `parallel_dispatch`.
    """

    def run(self, input_message: FlowMessage) -> None:
        """Answer with the reversed number."""
        number = integer(input_message.data, "number")
        self.send_message(
            self.package_output_message(input_message, {"output_number": reverse(number)})
        )


class ReverseNumberSequentialFlow(CompositeFlow):
    """Has `number` reversed by `first_reverse_flow`, and the result by `second_reverse_flow`.

    Input `{"number": int}`, output `{"output_number": int}`. Any number of callers may wait at the
    same time.
    """

    def run(self, input_message: FlowMessage) -> None:
        """Start a run for a caller's message, or go on with one for a subflow's reply."""
        if not input_message.is_reply:
            number = integer(input_message.data, "number")
            self.ask_subflow("first_reverse_flow", {"number": number}, caller=input_message)
            return
        run = self.resume(input_message)
        number = integer(input_message.data, "output_number")
        if run.subflow == "first_reverse_flow":
            self.ask_subflow("second_reverse_flow", {"number": number}, caller=run.message)
        else:
            output = {"output_number": number}
            self.send_message(self.package_output_message(run.message, output))


class ReverseNumbersFlow(CompositeFlow):
    """Has each of `numbers` reversed by `reverse_flow`, all at the same time.

    Input `{"numbers": [int, …]}`, output `{"output_numbers": [int, …]}`.
    """

    async def run(self, input_message: FlowMessage) -> None:
        """Ask for all of them, then wait for the answers in turn."""
        numbers = input_message.data.get("numbers")
        if not isinstance(numbers, list):
            raise ValueError(f"`numbers` must be a list of integers, not {numbers!r}")
        reverse_flow = self.subflows["reverse_flow"]
        futures = [
            reverse_flow.get_reply_future(self.package_input_message({"number": number}))
            for number in numbers
        ]
        output = {"output_numbers": [(await future)["output_number"] for future in futures]}
        self.send_message(self.package_output_message(input_message, output))


def reverse(number: int) -> int:
    """Return `number` with its digits in reverse order and its sign unchanged."""
    digits = int(str(abs(number))[::-1])
    return -digits if number < 0 else digits


def integer(data: Mapping[str, Any], key: str) -> int:
    """Return the integer at `key`; ValueError when there is none."""
    if key not in data:
        raise ValueError(f"`{key}` is missing; the message has: {', '.join(data) or 'nothing'}")
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`{key}` must be an integer, not {value!r}")
    return value
