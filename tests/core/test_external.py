"""§7.4, §7.5: operators that are programs, with the stock SDK in them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.core import CoreProcess
from tests.support.stock import blocking, sdk, stock_user

_OPERATOR = """
import os, sys
import colink as CL
operator = CL.ProtocolOperator(__name__)

@operator.handle("echo:@init")
def init(cl, param, participants):
    print("init of", cl.get_user_id(), flush=True)

@operator.handle("echo:local")
def run(cl, param, participants):
    cl.create_entry("tasks:{}:output".format(cl.get_task_id()), param)

print("address", os.environ.get("COLINK_VT_PUBLIC_ADDR"), flush=True)
print("secret", os.environ.get("COLINK_SERVER_MQ_URI"), flush=True)
operator.run()
"""
_ENTRYPOINT = f"sleep 1000 & {sys.executable} -W ignore echo_operator.py; exit 3"


def _package(colink_home: Path, entrypoint: str = _ENTRYPOINT) -> None:
    folder = colink_home / "protocols" / "echo"
    folder.mkdir(parents=True)
    (folder / "echo_operator.py").write_text(_OPERATOR)
    (folder / "colink.toml").write_text(f"[package]\nentrypoint = '{entrypoint}'\n")


def _group(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


async def _echoes(user, timeout: float = 20) -> None:
    """Assert that a task of the operator's protocol is done."""
    me = [sdk.Participant(user_id=user.get_user_id(), role="local")]
    task_id = await blocking(user.run_task, "echo", b"hello", me, False)
    output = await blocking(user.read_or_wait, f"tasks:{task_id}:output", timeout=timeout)
    assert output == b"hello"


async def _pid(user, instance_id: str) -> int:
    name = f"_internal:protocol_operator_instances:{instance_id}:pid"
    return int(await blocking(user.read_entry, name))


async def _gone(processes: list[psutil.Process]) -> None:
    _, left = await asyncio.to_thread(psutil.wait_procs, processes, 10)
    assert not left


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    _package(tmp_path / "colink")
    running = Core(Settings(home=tmp_path / "core", port=0, colink_home=tmp_path / "colink"))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def test_it_does_its_users_tasks_until_it_is_stopped(core: Core) -> None:
    user = await stock_user(core)
    instance = await blocking(user.start_protocol_operator, "echo", user.get_user_id(), False)
    await _echoes(user)
    processes = _group(await _pid(user, instance))
    assert [process for process in processes if process.name() == "sleep"]
    (log,) = (core.settings.home / "operators").iterdir()
    assert log.name == f"echo-{instance}.log"
    assert f"init of {user.get_user_id()}" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    await blocking(user.stop_protocol_operator, instance)
    await _gone(processes)
    group = await blocking(user.read_entry, "_internal:protocol_operator_groups:echo")
    assert group == b""


async def test_it_gets_its_public_address_and_none_of_the_cores_settings(
    core: Core, monkeypatch
) -> None:
    monkeypatch.setenv("COLINK_SERVER_MQ_URI", "redis://:password@localhost")
    user = await stock_user(core)
    await blocking(
        user.start_protocol_operator_full_config,
        *("echo", user.get_user_id(), False, 0, "", "", "127.0.0.9"),
    )
    await _echoes(user)
    (log,) = (core.settings.home / "operators").iterdir()
    assert "address 127.0.0.9\nsecret None\n" in log.read_text()


async def test_when_it_dies_it_is_started_again(core: Core) -> None:
    user = await stock_user(core)
    instance = await blocking(user.start_protocol_operator, "echo", user.get_user_id(), False)
    await _echoes(user)
    name = f"_internal:protocol_operator_instances:{instance}:pid"
    first = await _pid(user, instance)
    processes = _group(first)
    [p for p in processes if "echo_operator.py" in " ".join(p.cmdline())][-1].kill()
    await _gone(processes)
    path = (await blocking(user.read_entries, [sdk.StorageEntry(key_name=name)]))[0].key_path
    if await _pid(user, instance) == first:
        queue = await blocking(user.subscribe, name, int(path.partition("@")[2]) + 1)
        subscriber = await blocking(user.new_subscriber, queue)
        await blocking(subscriber.get_next)
        subscriber.redis_connection.close()
    assert await _pid(user, instance) != first
    await _echoes(user)


async def test_an_upgrade_wants_it_to_be_stopped(core: Core) -> None:
    user, other = await stock_user(core), await stock_user(core)
    await blocking(user.start_protocol_operator, "echo", user.get_user_id(), False)
    with pytest.raises(Exception, match="ABORTED"):
        await blocking(other.start_protocol_operator, "echo", other.get_user_id(), True)


async def test_what_cannot_be_had_leaves_no_instance(core: Core) -> None:
    user = await stock_user(core)
    with pytest.raises(Exception, match="NOT_FOUND"):
        await blocking(user.start_protocol_operator, "absent", user.get_user_id(), False)
    assert await blocking(user.read_entry, "_internal:protocol_operator_groups:absent") is None


async def test_a_users_init_waits_for_it(core: Core) -> None:
    (core.settings.home / "user_init_config.toml").write_text(
        "[echo]\noperator_num = 1\ncreate_entry = [{key_name = 'before', value = 'it'}]\n"
        "[policy_module]\noperator_num = 1\nstart_after = ['echo']\n"
    )
    user = await stock_user(core)
    await blocking(user.wait_user_init)
    assert await blocking(user.read_entry, "_internal:_is_initialized") == b"\x01"
    assert await blocking(user.read_entry, "_internal:protocols:echo:_is_initialized") == b"\x01"
    assert await blocking(user.read_entry, "before") == b"it"
    assert core.parts.operators.runs(user.get_user_id(), "policy_module")
    await _echoes(user)


async def test_it_ends_with_a_killed_core_and_runs_again_with_the_next(tmp_path: Path) -> None:
    _package(tmp_path / "colink")
    process = CoreProcess(tmp_path / "core", environment={"COLINK_HOME": str(tmp_path / "colink")})
    process.start()
    try:
        user = await stock_user(process)
        instance = await blocking(user.start_protocol_operator, "echo", user.get_user_id(), False)
        await _echoes(user)
        processes = _group(await _pid(user, instance))
        process.kill()
        await _gone(processes)
        process.start()
        await _echoes(user)
        assert await _pid(user, instance) != processes[0].pid
    finally:
        process.stop()
