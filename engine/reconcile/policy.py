"""What a change of a field does: one table, for the planner and for the documentation."""

from enum import StrEnum


class Effect(StrEnum):
    """What a changed field of a flow or mount entails."""

    IN_PLACE = "taken over in place"
    RECONFIGURE = "instances keep id and state, and take it at their next message"
    REWRITE = "the endpoint is rewritten; its instances stay, with their state"
    REPLACE = "replaced: instances are made anew"
    NEW_ONLY = "counts for new instances only"


FLOW_FIELDS = {
    "allow": Effect.IN_PLACE,
    "config_overrides": Effect.RECONFIGURE,
    "subflows": Effect.RECONFIGURE,
    "input_schema": Effect.RECONFIGURE,
    "output_schema": Effect.RECONFIGURE,
    "parallel_dispatch": Effect.REWRITE,
    "dispatch_point": Effect.REWRITE,
    "singleton": Effect.REWRITE,
    "flow_class_name": Effect.REPLACE,
}
MOUNT_FIELDS = {
    "user_id": Effect.REPLACE,
    "flow_endpoint": Effect.REPLACE,
    "tree": Effect.REPLACE,
    "config_overrides": Effect.RECONFIGURE,
    "initial_state": Effect.NEW_ONLY,
}
_SAID = {"tree": "the class of a flow that it reaches"}


def docs_table() -> str:
    """Return the table as Markdown."""
    rows = ["| changed field | what it does |", "|---|---|"]
    rows.append("| `users.*.workers` | processes are added or drained, the others not touched |")
    for owner, fields in (("flows", FLOW_FIELDS), ("mounts", MOUNT_FIELDS)):
        for name, effect in fields.items():
            said = _SAID.get(name, f"`users.*.{owner}.*.{name}`")
            rows.append(f"| {said} | {effect.value} |")
    rows.append("| a plugin's code or version | its workers are restarted, one by one |")
    return "\n".join(rows) + "\n"
