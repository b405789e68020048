"""The manifests that the benchmark applies. Pure."""

from typing import Any

import yaml

ATOMIC = "reverse_number.ReverseNumberAtomicFlow"
SEQUENTIAL = "reverse_number.ReverseNumberSequentialFlow"
POINT = "bench_dispatch"


def messages() -> str:
    """Return the manifest of the users `server` and `client` between whom messages go."""
    subflow = {"user_id": "server", "flow_endpoint": "reverse"}
    users = {
        "server": {
            "workers": {"dispatch": {"coflows_dispatch": 1, POINT: 2}},
            "flows": {
                "reverse": {"flow_class_name": ATOMIC, "singleton": True},
                "parallel": {
                    "flow_class_name": ATOMIC,
                    "parallel_dispatch": True,
                    "dispatch_point": POINT,
                },
            },
        },
        "client": {
            "flows": {
                "reverse": {"flow_class_name": ATOMIC, "singleton": True},
                "twice": {
                    "flow_class_name": SEQUENTIAL,
                    "subflows": {"first_reverse_flow": subflow, "second_reverse_flow": subflow},
                },
            },
        },
    }
    return _text("messages", users)


def many(name: str, count: int, changed: str = "") -> str:
    """Return a manifest with `count` flows of the user `name`.

    `changed` becomes the description of the one in the middle.
    """
    flows: dict[str, Any] = {
        f"endpoint_{number}": {"flow_class_name": ATOMIC} for number in range(count)
    }
    if changed:
        flows[f"endpoint_{count // 2}"]["config_overrides"] = {"description": changed}
    return _text(name, {name: {"flows": flows}})


def _text(name: str, users: dict[str, Any]) -> str:
    return yaml.safe_dump({"apiVersion": "engine/v1", "name": name, "users": users})
