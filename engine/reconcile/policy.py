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
    "retries": Effect.IN_PLACE,
    "mailbox_limit": Effect.IN_PLACE,
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
_SAID = {"tree": "the class of a flow that the mount reaches"}
_NOTES = {
    ("mounts", "config_overrides"): "; if another user serves the flow: replaced",
}
_BEFORE = (
    ("`name`", "refused: take the manifest down under its old name first"),
    ("`core`", "all is made on the new core; what stands on the old one stays there"),
    ("a user is removed", "its flows, mounts and workers are removed; identity and data stay"),
    ("`users.*.user_id`", "what refers to the user changes, as its own field says below"),
    ("`users.*.jwt`, `jwt_file`", "read when the engine connects the user: after its restart"),
    ("`users.*.workers`", "processes are added or drained, the others not touched"),
)
_AFTER = (
    ("a flow or mount is removed", "deleted with its instances, mounts first"),
    ("a plugin's code or version", "the workers that run its flows are rolled, one by one"),
    ("a variable of `${oc.env:…}`", "the workers of the manifest's flows are rolled, one by one"),
)


def docs_table() -> str:
    """Return the table in docs/manifest.md, as Markdown."""
    rows = ["| what changes | what the engine does |", "|---|---|"]
    rows += [f"| {field} | {effect} |" for field, effect in _BEFORE]
    for owner, fields in (("flows", FLOW_FIELDS), ("mounts", MOUNT_FIELDS)):
        for name, effect in fields.items():
            said = _SAID.get(name, f"`users.*.{owner}.*.{name}`")
            rows.append(f"| {said} | {effect.value}{_NOTES.get((owner, name), '')} |")
    rows += [f"| {field} | {effect} |" for field, effect in _AFTER]
    return "\n".join(rows) + "\n"
