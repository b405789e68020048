"""For notebooks: a core with users at the push of a button, and a look at what is stored."""

import asyncio
import atexit
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colink import CoLink

from engine.colink import keys
from engine.colink.client import Client, Connections
from engine.colink.identity import KeyPair
from engine.colink.payloads import json_value
from engine.kits.parentage import ChildProcess
from engine.model.errors import CoreUnavailableError
from engine.serving.bridge import bridge

_LOG = "core.log"
_FAREWELL = 5.0
_TOKEN_LIFETIME = 31 * 86_400
_SCHEDULER = "coflows_scheduler"


def start_colink_server() -> CoLink:
    """Start a core and return a fresh user of it, with a scheduler running.

    Core and data live as long as this process does.
    """
    return start_colink_server_with_users(1)[0]


def start_colink_server_with_users(num_users: int = 1) -> list[CoLink]:
    """Start a core and return `num_users` fresh users of it, each with a scheduler running.

    Core and data live as long as this process does, however it ends. Raises CoreUnavailableError
    when the core does not start.
    """
    here = bridge()
    home = Path(tempfile.mkdtemp(prefix="colink-core-"))
    process = here.run(_start(home))
    # The bridge's own end was registered before, so it comes after this.
    atexit.register(_end, process, home)
    return here.run(_users(process, home, num_users))


def _end(process: ChildProcess, home: Path) -> None:
    process.terminate()
    with contextlib.suppress(TimeoutError):
        bridge().run(asyncio.wait_for(process.wait(), _FAREWELL))
    process.kill()
    shutil.rmtree(home, ignore_errors=True)


def print_served_flows(cl: CoLink, print_values: bool = False) -> None:
    """Print the endpoints of the user of `cl` and everything below them as a tree."""
    _print_tree(cl, keys.FLOWS, print_values)


def print_flow_instances(cl: CoLink, print_values: bool = False) -> None:
    """Print the ids of all instances of the user's flows."""
    _print_tree(cl, keys.INSTANCE_METADATA, print_values)


async def _start(home: Path) -> ChildProcess:
    """Start a core that ends when this process does: the kernel tells it, however that happens."""
    command = [sys.executable, "-m", "engine.core.main", "--child", "--home", str(home)]
    process = await ChildProcess.start(command, log=home / _LOG)
    await process.tell({"port": 0})
    return process


async def _users(process: ChildProcess, home: Path, num_users: int) -> list[CoLink]:
    """Wait until the core is ready, and return fresh users of it."""
    told = await process.next_line()
    if told is None or told.get("state") != "ready":
        reason = (told or {}).get("message") or (home / _LOG).read_text()[-2000:]
        raise CoreUnavailableError(f"The core did not start: {reason}")
    async with Connections() as connections:
        host = connections.client(str(told["address"]), str(told["host_token"]))
        return [await _new_user(host) for _ in range(num_users)]


async def _new_user(host: Client) -> CoLink:
    pair = KeyPair.generate()
    info = await host.request_info()
    consent = pair.sign_consent(info.core_public_key, int(time.time()) + _TOKEN_LIFETIME)
    token = await host.import_user(consent)
    await host.start_protocol_operator(_SCHEDULER, pair.user_id)
    return CoLink(host.address, token)


def _print_tree(cl: CoLink, prefix: str, print_values: bool) -> None:
    entries = bridge().run(bridge().client(cl).read_tree(prefix))
    for line in tree_lines(entries, prefix, print_values):
        print(line)  # noqa: T201 - it is what this is for


def tree_lines(entries: Mapping[str, bytes], prefix: str, print_values: bool) -> list[str]:
    """Return the entries below `prefix` as the lines of a tree.

    Each level is indented by two blanks more; a name that only has others below it ends in a
    slash, a value follows its name after a colon.
    """
    below: dict[str, dict[str, bytes]] = {}
    for key, payload in entries.items():
        name, _, rest = key.removeprefix(prefix and f"{prefix}:").partition(":")
        below.setdefault(name, {})[rest] = payload
    lines = []
    for name, found in below.items():
        own = found.pop("", None)
        shown = f": {_shown(own)}" if own is not None and print_values else ""
        lines.append(f" {name}{'/' if own is None else shown}")
        lines += [f"  {line}" for line in tree_lines(found, "", print_values)]
    return lines


def _shown(payload: bytes) -> Any:
    try:
        return json_value(payload)
    except ValueError:
        return payload
