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


def fleet(flows: int, users: int = 100) -> str:
    """Return a manifest with `flows` flows of `users` users, as large ones are in practice.

    Nine flows in ten are atomic; each tenth is composed of two of the next user's. Each user has a
    mount, a configuration that refers to another value, and one that comes from the environment.
    """
    each = flows // users
    declared = {f"user{n}": _member(n, each, f"user{(n + 1) % users}") for n in range(users)}
    return _text("fleet", declared)


def _member(number: int, flows: int, next_user: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for position in range(flows):
        flow: dict[str, Any] = {"flow_class_name": ATOMIC, "allow": ["any"]}
        if position % 10 == 9:
            subflow = {"user_id": next_user, "flow_endpoint": f"endpoint_{position - 1}"}
            flow = {
                "flow_class_name": SEQUENTIAL,
                "subflows": {"first_reverse_flow": subflow, "second_reverse_flow": subflow},
            }
        elif position % 10 == 0:
            path = f"users.user{number}.flows.endpoint_{position}.flow_class_name"
            flow["config_overrides"] = {
                "description": f"${{{path}}}, {position} of user{number}",
                "key": "${oc.env:FLEET_KEY,none}",
            }
        found[f"endpoint_{position}"] = flow
    return {
        "workers": {"dispatch": 1, "get_instance": 2},
        "flows": found,
        "mounts": {"first": {"flow_endpoint": "endpoint_0"}},
    }


def _text(name: str, users: dict[str, Any]) -> str:
    return yaml.safe_dump({"apiVersion": "engine/v1", "name": name, "users": users})
