"""What the README shows can be done as it stands there."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from engine.flows import Flow
from engine.hooks import load_catalog
from engine.loading import load_text
from tests.conftest import ROOT
from tests.support.engine import EngineCommand
from tests.support.markdown import Block, blocks

README = ROOT / "README.md"


def test_the_first_two_commands_are_targets_of_the_makefile() -> None:
    commands = [line.split("#")[0].split() for line in blocks(README)[0].text.splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for _, target in commands)


def test_the_manifest_is_the_demo_s(manifests: Path) -> None:
    shown = yaml.safe_load(blocks(README, "yaml")[0].text)
    demo = yaml.safe_load((manifests / "reverse_number.yaml").read_text())
    assert shown["users"].keys() == demo["users"].keys()
    assert shown["users"]["user1"]["mounts"] == demo["users"]["user1"]["mounts"]


@pytest.mark.parametrize("block", blocks(README, "yaml"), ids=lambda block: f"line {block.line}")
def test_every_manifest_shown_is_valid(block: Block) -> None:
    manifest = load_text(
        block.text, Path("readme.yaml"), load_catalog(Flow), {"ALICE_JWT": "a.b.c"}
    )
    assert "a.b.c" not in repr(manifest)


def test_every_command_runs_as_shown(engine: EngineCommand, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(blocks(README, "yaml")[0].text)
    for line in blocks(README, "sh")[1].text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "engine"
        command = [*engine.command(), *words[1:]]
        if "-f" in words:
            follow_a_moment(engine, command, tmp_path)
            continue
        done = subprocess.run(
            command, cwd=tmp_path, env=engine.variables(), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if words[1] == "call":
            assert json.loads(done.stdout) == {"output_number": 1234}


def follow_a_moment(engine: EngineCommand, command: list[str], folder: Path) -> None:
    """Run a command that follows something until its first line, then interrupt it."""
    following = subprocess.Popen(
        command, cwd=folder, env=engine.variables(), stdout=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    assert following.stdout.readline()
    following.terminate()
    following.communicate(timeout=10)
