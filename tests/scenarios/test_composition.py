"""A manifest of several files, followed by the engine as one."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineCommand

BASE = """\
apiVersion: engine/v1
name: composed
include: parts
env_file: a.env
users:
  user0:
    flows:
      echo:
        flow_class_name: reverse_number.ReverseNumberAtomicFlow
        config_overrides: {description: "${oc.env:WORDS}"}
profiles:
  dev: {users: {user0: {workers: {dispatch: 2}}}}
"""
USERS = "users: {user1: {workers: {dispatch: 0}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.yaml").write_text(USERS)
    (tmp_path / "prod.yaml").write_text("users: {user0: {flows: {echo: {singleton: true}}}}\n")
    (tmp_path / "a.env").write_text("WORDS=s3cr3t-one\n")
    return tmp_path


def composed(status: Any) -> Any:
    return next(m for m in status["manifests"] if m["name"] == "composed")


def workers(status: Any, user: str) -> int:
    found = composed(status)["users"][user]["workers"]
    return len([worker for worker in found if worker["kind"] == "dispatch"])


def dispatching(engine: EngineCommand) -> set[int]:
    return {pid for name, pid in engine.pids().items() if name.startswith("user0/coflows_dispatch")}


def test_every_file_is_followed_and_remembered(engine: EngineCommand, folder: Path) -> None:
    base = folder / "base.yaml"
    over = ("-f", folder / "prod.yaml", "--profile", "dev")
    engine("apply", base, *over)
    status = engine.status()
    assert composed(status)["users"]["user0"]["flows"]["echo"]["singleton"] is True
    assert workers(status, "user0") == 2
    assert engine.json("plan", base, *over)["steps"] == []

    (folder / "parts" / "two.yaml").write_text("users: {user2: {}}\n")
    engine.until(lambda s: "user2" in composed(s)["users"] and composed(s)["converged"])
    (folder / "prod.yaml").write_text("users: {user0: {workers: {dispatch: 3}}}\n")
    engine.until(lambda s: workers(s, "user0") == 3 and composed(s)["converged"])

    before = dispatching(engine)
    (folder / "a.env").write_text("WORDS=s3cr3t-two\n")
    engine.until(
        lambda s: before.isdisjoint(dispatching(engine)) and composed(s)["converged"], timeout=40
    )

    kept = [file for file in engine.home.rglob("*") if file.is_file()]
    assert not [file for file in kept if b"s3cr3t" in file.read_bytes()]


def test_a_killed_engine_takes_up_the_same_files(engine: EngineCommand, folder: Path) -> None:
    engine("apply", folder / "base.yaml", "-f", folder / "prod.yaml", "--profile", "dev")
    os.kill(int((engine.home / "engine.lock").read_text()), signal.SIGKILL)
    (folder / "parts" / "one.yaml").write_text("users: {user1: [}\n")
    other = folder / "other.yaml"
    other.write_text("apiVersion: engine/v1\nusers: {user9: {}}\n")
    engine("apply", other)
    engine.until(lambda s: "one.yaml" in told(s) and composed(s)["users"])
    status = engine.status()
    assert set(composed(status)["users"]) == {"user0", "user1"}
    (folder / "parts" / "one.yaml").write_text(USERS)
    engine.until(lambda s: composed(s)["converged"] and workers(s, "user0") == 2)


def told(status: Any) -> str:
    return " ".join(condition["message"] for condition in composed(status)["conditions"])


def test_a_broken_include_changes_nothing_and_is_told_where_it_is(
    engine: EngineCommand, folder: Path
) -> None:
    engine("apply", folder / "base.yaml")
    (folder / "parts" / "one.yaml").write_text("users: {user1: {flow: {}}}\n")
    status = engine.until(lambda s: "one.yaml:1:17" in told(s))
    assert "There is no such key. Did you mean flows?" in told(status)
    assert "user1" in composed(status)["users"]


def test_a_rollback_writes_all_files_and_keeps_layers_and_profile(
    engine: EngineCommand, folder: Path
) -> None:
    layer, part = folder / "prod.yaml", folder / "parts" / "one.yaml"
    engine("apply", folder / "base.yaml", "-f", layer, "--profile", "dev")
    layer.write_text("users: {user3: {}}\n")
    engine.until(lambda s: composed(s)["observed_generation"] == 2)
    part.write_text("users: {user4: {}}\n")
    engine.until(lambda s: composed(s)["observed_generation"] == 3)
    assert "+users: {user4: {}}" in engine("diff", "composed", "2", "3").stdout

    engine("rollback", "composed", "1")
    assert part.read_text() == USERS
    assert "singleton" in layer.read_text()
    assert workers(engine.status(), "user0") == 2
    assert engine.json("history")[-1]["layers"] == [str(layer)]


def test_without_its_variables_an_engine_that_starts_again_deletes_nothing(
    engine: EngineCommand, folder: Path
) -> None:
    engine("apply", folder / "base.yaml")
    served = engine.json("storage", "user0", "flows")
    os.kill(int((engine.home / "engine.lock").read_text()), signal.SIGKILL)
    (folder / "a.env").unlink()
    other = folder / "other.yaml"
    other.write_text("apiVersion: engine/v1\nusers: {user9: {}}\n")
    engine("apply", other)
    engine.until(lambda s: "a.env" in told(s))
    assert engine.json("storage", "user0", "flows") == served

    (folder / "a.env").write_text("WORDS=again\n")
    engine.until(lambda s: composed(s)["converged"], timeout=40)
