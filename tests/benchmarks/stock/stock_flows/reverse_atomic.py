"""Reverses the digits of a number."""

from aiflows.base_flows import AtomicFlow


class ReverseAtomic(AtomicFlow):
    """Answers {"number": n} with {"output_number": n reversed}."""

    def run(self, input_message):
        answer = {"output_number": int(str(input_message.data["number"])[::-1])}
        self.send_message(self.package_output_message(input_message, answer))
