"""Reverses a number twice, by two subflows."""

from aiflows.base_flows import CompositeFlow


class ReverseTwice(CompositeFlow):
    """Asks `first_reverse_flow`, then `second_reverse_flow`, then answers."""

    def set_up_flow_state(self):
        self.flow_state = {"next": "first_reverse_flow"}

    def run(self, input_message):
        step = self.flow_state["next"]
        if step == "first_reverse_flow":
            self.flow_state["asked"] = input_message
            self.subflows[step].get_reply(input_message)
            self.flow_state["next"] = "second_reverse_flow"
        elif step == "second_reverse_flow":
            number = {"number": input_message.data["output_number"]}
            self.subflows[step].get_reply(self.package_input_message(number))
            self.flow_state["next"] = "answer"
        else:
            asked = self.flow_state["asked"]
            self.send_message(self.package_output_message(asked, input_message.data))
            self.flow_state["next"] = "first_reverse_flow"
