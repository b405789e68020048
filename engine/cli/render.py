"""From JSON to the text that people read. Pure functions: no terminal, no clock, no engine.

What comes in has the shapes of docs/command-line.md; what comes out has no newline at its end.
Colours are laid on afterwards, by `engine.cli.output`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from engine.model.ids import DEFAULT_DISPATCH_POINT, is_user_id

Json = Mapping[str, Any]
_Branch = dict[tuple[str, str], Any]
"""By name and mark ("/" for a folder): a folder's own branch, or what follows a leaf's name."""
_VALUE_LIMIT = 200
_DEPTH_LIMIT = 50


def columns(rows: Sequence[Sequence[str]], indent: int = 0) -> list[str]:
    """Return one line a row, the cells of each column below one another, two blanks between."""
    count = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    # A column that is empty everywhere would show as a gap only.
    kept = [i for i in range(count) if widths[i]]
    return [
        (" " * indent + "  ".join(row[i].ljust(widths[i]) for i in kept if i < len(row))).rstrip()
        for row in rows
    ]


def one_line(text: str) -> str:
    """Return `text` with every run of blanks and newlines as one blank."""
    return " ".join(text.split())


def status(value: Json) -> str:
    """Return what `engine status` shows of an EngineStatus."""
    core = value["core"]
    state = "Ready" if core["ready"] else "Pending"
    lines = columns([["core", core["kind"], core["address"], state, core.get("message", "")]])
    for manifest in value["manifests"]:
        lines += ["", *_manifest(manifest)]
    if not value["manifests"]:
        lines.append("No manifest is applied. Apply one with: engine apply MANIFEST")
    return "\n".join(lines)


def _manifest(manifest: Json) -> Iterator[str]:
    state = "Converged" if manifest["converged"] else "Converging"
    generation = f"generation {manifest['generation']}"
    if manifest["observed_generation"] != manifest["generation"]:
        generation += f" (running: {manifest['observed_generation']})"
    yield f"{manifest['name']}  {state}  {generation}  {manifest['file']}"
    for condition in manifest["conditions"]:
        if condition["status"] != "True":
            first, *rest = condition["message"].splitlines() or [condition["reason"]]
            yield f"  ! {condition['type']} is {condition['status']}: {first}"
            yield from (f"    {line}" for line in rest)
    names = {user["user_id"]: name for name, user in manifest["users"].items() if user["user_id"]}
    found = {name: list(_resources(user, names)) for name, user in manifest["users"].items()}
    rows = iter(columns([row for group in found.values() for row, _ in group], indent=4))
    for name, user in manifest["users"].items():
        yield f"  {name}  {user['user_id'] or '(no identity yet)'}"
        for _, message in found[name]:
            yield next(rows)
            if message:
                yield f"      {one_line(message)}"


def _resources(user: Json, names: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """Yield the cells of each resource's row, and the message that stands below it."""
    for worker in user["workers"]:
        notes = [worker["dispatch_point"]] if worker["kind"] == "dispatch" else []
        notes += [f"pid {worker['pid']}"] if worker["pid"] else []
        notes += [f"{worker['restarts']} restarts"] if worker["restarts"] else []
        yield _row(worker, "worker", worker["name"], ", ".join(notes))
    for endpoint, flow in user["flows"].items():
        notes = [name for name in ("singleton", "parallel_dispatch") if flow[name]]
        if flow["dispatch_point"] != DEFAULT_DISPATCH_POINT:
            notes.append(f"on {flow['dispatch_point']}")
        yield _row(flow, "flow", endpoint, ", ".join([flow["flow_class_name"], *notes]))
    for name, mount in user["mounts"].items():
        server = names.get(mount["user_id"], shortened(mount["user_id"]))
        detail = f"of {server}/{mount['flow_endpoint']} {mount['flow_id']}".rstrip()
        yield _row(mount, "mount", name, detail)


def _row(resource: Json, kind: str, name: str, detail: str) -> tuple[list[str], str]:
    return [resource["state"], kind, name, detail], resource.get("message", "")


def shortened(user_id: str) -> str:
    """Return a hex user id as its first eight digits; a name as it is."""
    return f"{user_id[:8]}…" if is_user_id(user_id) else user_id


def plan(value: Json) -> str:
    """Return what `engine plan` shows: the planner's own text, one line a step."""
    return str(value["text"])


def storage(
    entries: Iterable[Json], prefix: str = "", *, values: bool = False, indent: int = 1
) -> str:
    """Return entries (`{"key", "value", "size"}`) as a tree, what stands above `prefix` left out.

    A key's parts are folders (`name/`), its last part is a leaf; with `values`, `leaf = value`.
    """
    tree: _Branch = {}
    for entry in entries:
        *folders, leaf = _below(entry["key"], prefix).split(":", _DEPTH_LIMIT)
        branch = tree
        for folder in folders:
            branch = branch.setdefault((folder, "/"), {})
        branch[leaf, ""] = f" = {_value(entry)}" if values else ""
    return "\n".join(_lines(tree, indent))


def _below(key: str, prefix: str) -> str:
    return key.removeprefix(f"{prefix}:") if prefix else key


def _lines(branch: _Branch, indent: int) -> Iterator[str]:
    for (name, mark), content in sorted(branch.items(), key=lambda item: item[0]):
        yield f"{' ' * indent}{name}{mark}{content if isinstance(content, str) else ''}"
        if isinstance(content, dict):
            yield from _lines(content, indent + 2)


def _value(entry: Json) -> str:
    value = entry["value"]
    if value is None:
        return f"({entry['size']} bytes)"
    text = one_line(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= _VALUE_LIMIT else f"{text[:_VALUE_LIMIT]}… ({entry['size']} bytes)"


def served(flows: Iterable[Json], instances: Iterable[Json], *, values: bool = False) -> str:
    """Return what a user serves, as a tree, and the ids of all instances."""
    ids = sorted({entry["key"].split(":")[1] for entry in instances if ":" in entry["key"]})
    tree = storage(flows, "flows", values=values) or " (nothing is served)"
    return "\n".join([tree, "", "All flow instances:", *(f" {flow_id}" for flow_id in ids)])


def plugins(value: Sequence[Json]) -> str:
    """Return the list of plugins; below a broken one stands its error."""
    if not value:
        return "No plugin is installed. A plugin is a package with an entry point colink_engine."
    rows = [
        [
            plugin["name"],
            "broken" if plugin["error"] else "ok",
            f"{plugin['distribution']} {plugin['version']}".strip(),
            plugin["location"],
            ", ".join(plugin["classes"]),
        ]
        for plugin in value
    ]
    lines = []
    for plugin, line in zip(value, columns(rows), strict=True):
        lines.append(line)
        if plugin["error"]:
            lines.append(
                f"  error: {one_line(plugin['error'])} (its trace: engine plugins -o json)"
            )
    return "\n".join(lines)


def flows(value: Sequence[Json]) -> str:
    """Return the list of flow classes: name, kind and the first line of what it is for."""
    if not value:
        return "No plugin brings a flow class. What is installed: engine plugins"
    return "\n".join(columns([[flow["name"], _kind(flow), _summary(flow)] for flow in value]))


def _kind(flow: Json) -> str:
    return "composite" if flow["composite"] else "atomic"


def _summary(flow: Json) -> str:
    return next((line.strip() for line in flow["doc"].splitlines() if line.strip()), "")


def flow(value: Json) -> str:
    """Return one flow class: what it is for, its interfaces and its default configuration."""
    lines = [f"{value['name']}  {_kind(value)}"]
    if value["doc"]:
        lines += ["", *(f"  {line}".rstrip() for line in value["doc"].strip().splitlines())]
    if value["interfaces"]:
        lines += ["", "Interfaces:", *_yaml(value["interfaces"], 2)]
    return "\n".join([*lines, "", "Defaults:", *_yaml(value["default_config"], 2)])


def _yaml(value: Any, indent: int) -> Iterator[str]:
    """Yield `value` as lines of YAML; scalars are written as JSON, which YAML includes."""
    blanks = " " * indent
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _labelled(f"{blanks}{key}:", item, indent)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for item in value:
            yield from _labelled(f"{blanks}-", item, indent)
    else:
        yield blanks + json.dumps(value, ensure_ascii=False)


def _labelled(label: str, item: Any, indent: int) -> Iterator[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield label
        yield from _yaml(item, indent + 2)
    else:
        yield f"{label} {json.dumps(item, ensure_ascii=False)}"


def users(value: Sequence[Json]) -> str:
    """Return the list of identities on this machine."""
    if not value:
        return "There is no user yet. A user is made when a manifest that names him is applied."
    return "\n".join(columns([[user["name"], user["user_id"], user["core"]] for user in value]))


def dead_letters(value: Sequence[Json], zone: tzinfo | None = None) -> str:
    """Return the list of a user's dead letters; their times in `zone`."""
    if not value:
        return "There are no dead letters."
    rows = [
        [
            letter["id"],
            _moment(letter["time"], zone),
            letter["reason"],
            letter["flow_endpoint"] or letter["flow_id"],
            one_line(str(letter["error"].get("error", "")))[:_VALUE_LIMIT],
        ]
        for letter in value
    ]
    return "\n".join(columns(rows))


def dead_letter(value: Json, zone: tzinfo | None = None) -> str:
    """Return all of one dead letter; its time in `zone`."""
    rows = [
        ["id", value["id"]],
        ["time", _moment(value["time"], zone)],
        ["reason", f"{value['reason']}, attempts: {value['attempts']}"],
        ["flow", f"{value['flow_endpoint']} {value['flow_id']}".strip()],
        ["error", one_line(str(value["error"].get("error", "")))],
        ["message", value["message"]],
    ]
    return "\n".join([*columns(rows), *value["traceback"].rstrip().splitlines()])


def _moment(time: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(time, tz=zone).strftime("%Y-%m-%d %H:%M:%S")


def event(value: Json, zone: tzinfo | None = None) -> str:
    """Return one event on one line; its time in `zone` (default: the machine's)."""
    cells = (value["manifest"], value["resource"], one_line(value["message"]))
    return "  ".join([_moment(value["time"], zone), value["type"], *filter(None, cells)])


def history(value: Sequence[Json], zone: tzinfo | None = None) -> str:
    """Return generations, oldest first: number, time, result, and below it what was done."""
    lines: list[str] = []
    for one in value:
        moment = datetime.fromtimestamp(one["time"], tz=zone).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{one['generation']:>4}  {moment}  {one['result']}")
        lines += [f"      {one_line(step)}" for step in one["steps"]]
        lines += [f"      ! {one_line(one['message'])}"] if one["message"] else []
    return "\n".join(lines)


def events(value: Sequence[Json], zone: tzinfo | None = None) -> str:
    """Return events, one a line, in the order given."""
    return "\n".join(event(one, zone) for one in value)


def explanation(value: Json) -> str:
    """Return what `engine config --explain` shows: the value, who sets it, what that overrides."""
    sources = [{**value, "value": value["written"]}, *value["overrides"]]
    rows = [
        [
            "over" if number else "set in",
            f"{source['file']}:{source['line']}:{source['column']}",
            _limited(source["value"]),
            f"({source['origin']})" if source["origin"] else "",
        ]
        for number, source in enumerate(sources)
        if source["file"]
    ]
    return "\n".join([f"{value['path']}: {_limited(value['value'])}", *columns(rows, indent=2)])


def _limited(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_LIMIT else f"{text[:_VALUE_LIMIT]}…"
