"""The program `colink-server`: its settings, its start and end, and who may run it how."""

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.core.install import install
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


_TEXTS = {
    "address": "0.0.0.0",
    "port": 1234,
    "mq_uri": "redis://127.0.0.1",
    "mq_api": "http://127.0.0.1",
    "mq_prefix": "prefix",
    "core_uri": "http://127.0.0.1:1",
    "inter_core_ca": "ca",
    "inter_core_cert": "cert",
    "inter_core_key": "key",
    "cert": "c",
    "key": "k",
    "ca": "a",
}
_FLAGS = ("force_gen_jwt_secret", "force_gen_priv_key", "inter_core_reverse_mode")


def test_upstreams_settings_are_taken_from_flags_and_from_the_environment(tmp_path) -> None:
    def flag(name: str) -> str:
        return "--" + name.replace("_", "-")

    arguments = [part for name, value in _TEXTS.items() for part in (flag(name), str(value))]
    arguments += [flag(name) for name in _FLAGS]
    arguments += ["--pom-protocol-inventory", "/inventory", "--pom-allow-external-source"]
    environment = {f"COLINK_SERVER_{name.upper()}": str(value) for name, value in _TEXTS.items()}
    environment |= {f"COLINK_SERVER_{name.upper()}": "true" for name in _FLAGS}
    environment |= {
        "COLINK_POM_PROTOCOL_INVENTORY": "/inventory",
        "COLINK_POM_ALLOW_EXTERNAL_SOURCE": "true",
    }
    home = {"HOME": str(tmp_path)}
    settings = parse(arguments, home)
    assert settings == parse([], environment | home)
    assert {name: getattr(settings, name) for name in _TEXTS} == _TEXTS
    assert all(getattr(settings, name) for name in _FLAGS)
    assert settings.pom_protocol_inventory == "/inventory"
    assert settings.pom_allow_external_source
    assert settings.colink_home == tmp_path / ".colink"


def test_limits_are_numbers_from_flags_and_the_environment() -> None:
    environment = {"COLINK_SERVER_MAX_KEY_BYTES": "99", "COLINK_SERVER_LOCK_LEASE_SECONDS": "0"}
    settings = parse(["--max-calls-per-second", "1.5"], environment)
    assert settings.limits.max_key_bytes == 99
    assert settings.limits.max_calls_per_second == 1.5
    assert settings.lock_lease_seconds == 0
    assert parse([], {}) == parse(["--max-key-bytes", "4096"], {})


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
        *(["--max-key-bytes", text] for text in ("x", "-1", "nan", "inf")),
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


def test_all_files_are_for_this_user_only(core_process: CoreProcess) -> None:
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in core_process.home.rglob("*")
        if path.is_file() and path.name != "stderr.log"  # opened by the test
    }
    assert set(modes) >= {"core.sqlite", "core.sqlite-wal", "host_token.txt", "users.acl"}
    assert not [name for name, mode in modes.items() if mode & 0o077]


async def test_the_hosts_token_is_renewed_in_its_file(core: Core) -> None:
    path = core.settings.home / "host_token.txt"
    path.unlink()
    core.renew_host_token()
    assert path.read_text() == core.host_token
    assert core.parts.tokens.check(core.host_token).privilege == "host"


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


def test_install_writes_the_program_again_but_over_no_other(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLINK_HOME", str(tmp_path / "colink"))
    program = tmp_path / "colink" / "colink-server"
    for _ in range(2):
        assert main(["install"]) == 0
        assert capsys.readouterr().out == f"{program} runs this core.\n"
        assert stat.S_IMODE(program.stat().st_mode) == 0o755
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert "--inter-core-reverse-mode" in done.stdout
    program.write_bytes(b"\x7fELF another core")
    assert main(["install"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["install", "--force"]) == 0
    monkeypatch.delenv("COLINK_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["install"]) == 0
    assert (tmp_path / ".colink" / "colink-server").exists()


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
    install([], {"COLINK_HOME": str(tmp_path)})
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
