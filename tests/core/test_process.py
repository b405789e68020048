"""The program `colink-server`: its settings, its start and end, and who may run it how."""

import json
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.core.main import main
from engine.core.server import Core
from engine.core.settings import Settings, parse
from engine.kits.parentage import ChildProcess
from engine.model.errors import LockHeldError, UsageError
from tests.support.core import CoreProcess


def test_flags_come_before_the_environment_and_that_before_defaults(tmp_path: Path) -> None:
    environment = {
        "COLINK_SERVER_PORT": "3000",
        "COLINK_SERVER_MQ_PREFIX": "environment",
        "COLINK_SERVER_FORCE_GEN_JWT_SECRET": "true",
        "COLINK_HOME": "/colink",
    }
    settings = parse(["--mq-prefix", "flag", "--home", str(tmp_path)], environment)
    assert (settings.port, settings.mq_prefix, settings.address) == (3000, "flag", "127.0.0.1")
    assert settings.force_gen_jwt_secret
    assert settings.colink_home == Path("/colink")
    assert parse(["-p", "1", "-a", "0.0.0.0"], {}).port == 1


def test_instant_servers_flags_are_accepted() -> None:
    settings = parse(
        [
            *("--address", "0.0.0.0", "--port", "12345"),
            *("--mq-prefix", "colink-instant-server-12345"),
            *("--core-uri", "http://127.0.0.1:12345", "--inter-core-reverse-mode"),
        ],
        {},
    )
    assert settings.inter_core_reverse_mode
    assert settings.uri(1) == "http://127.0.0.1:12345"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--port", "x"], ["--port", "70000"], ["--cert", "only"]),
        *(["--retention-hours", "-1"], ["--history-hours", "long"]),
        *(["--mq-uri", "amqp://localhost"], ["--mq-uri", "nats://localhost"]),
    ],
)
def test_wrong_settings_are_a_line_and_exit_code_two(arguments, capsys, tmp_path) -> None:
    assert main([*arguments, "--home", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("colink-server: ")


async def test_the_files_of_a_core(core: Core) -> None:
    home = core.settings.home
    for name in ("jwt_secret.txt", "priv_key.txt"):
        path = home / "init_state" / name
        assert len(bytes.fromhex(path.read_text())) == 32
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (home / "host_token.txt").read_text() == core.host_token
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "core.sqlite").stat().st_mode) == 0o600


async def test_secrets_stay_unless_new_ones_are_wanted(tmp_path: Path) -> None:
    ids = []
    for force in (False, False, True):
        core = Core(Settings(home=tmp_path, port=0, force_gen_priv_key=force))
        await core.start()
        ids.append(core.host_id)
        await core.stop()
    assert ids[0] == ids[1] != ids[2]


async def test_a_home_has_one_core(core: Core) -> None:
    second = Core(Settings(home=core.settings.home, port=0))
    with pytest.raises(LockHeldError, match="Another core"):
        await second.start()


async def test_a_port_in_use_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        core = Core(Settings(home=tmp_path, port=taken.getsockname()[1]))
        with pytest.raises(UsageError, match="Cannot listen"):
            await core.start()
    assert set(psutil.Process().children(recursive=True)) <= before


async def test_a_file_that_is_no_storage_is_told(tmp_path: Path) -> None:
    (tmp_path / "core.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(UsageError, match=r"core\.sqlite"):
        await Core(Settings(home=tmp_path, port=0)).start()


async def test_as_a_child_it_tells_and_ends_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.core.main", "--child", "--home", str(tmp_path)]
    child = await ChildProcess.start([*command, "--port", "0"], log=tmp_path / "log")
    await child.tell({})
    told = await child.next_line()
    assert told is not None, (tmp_path / "log").read_text()
    assert told["state"] == "ready"
    assert told["address"].startswith("http://127.0.0.1:")
    assert told["host_token"] == (tmp_path / "host_token.txt").read_text()
    processes = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
    assert len(processes) == 2
    child.terminate()
    assert await child.wait() == 0
    assert not psutil.wait_procs(processes, timeout=10)[1]


async def test_a_child_that_cannot_start_says_why(core: Core, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.core.main", "--child"]
    child = await ChildProcess.start(
        [*command, "--home", str(core.settings.home)], log=tmp_path / "log"
    )
    await child.tell({})
    told = await child.next_line()
    assert told is not None
    assert told["state"] == "error"
    assert "Another core" in told["message"]
    assert await child.wait() == 1


_INSTANT = """
import json, sys, time
from colink.instant_server import InstantServer
server = InstantServer()
user = server.get_colink().switch_to_generated_user()
user.create_entry("a", b"1")
print(json.dumps({"pid": server.process.pid, "user": user.get_user_id()}), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_instant_server_runs_it_and_nothing_outlives_the_client(tmp_path: Path, killed) -> None:
    program = tmp_path / "colink-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine.core.main "$@"\n')
    program.chmod(0o755)
    client = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _INSTANT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**dict(psutil.Process().environ()), "COLINK_HOME": str(tmp_path)},
    )
    assert client.stdin is not None
    assert client.stdout is not None
    told = json.loads(client.stdout.readline())
    core = psutil.Process(told["pid"])
    processes = [core, *core.children()]
    assert [process for process in processes if "valkey" in process.name()]
    if killed:
        client.kill()
    client.stdin.close()
    client.wait(20)
    # The core holds no end of the client's output: else this would not come to its end.
    assert client.stdout.read() == b""
    client.stdout.close()
    assert not psutil.wait_procs(processes, timeout=10)[1]


async def test_it_starts_quickly(tmp_path: Path) -> None:
    process = CoreProcess(tmp_path / "core")
    began = time.monotonic()
    process.start()
    try:
        assert time.monotonic() - began < 5
    finally:
        process.kill()
