"""docs/composition.md, done as it says: its files are written, its commands run."""

import re
import shlex
from pathlib import Path

import pytest

from engine.cli.main import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "composition.md").read_text()
FILE = re.compile(r"^```(?:yaml|sh)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINE_HOME", str(tmp_path / "home"))
    for name, text in FILE.findall(PAGE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n{text}")


def test_every_block_is_a_file_or_a_session() -> None:
    assert len(FILE.findall(PAGE)) + len(SESSION.findall(PAGE)) == PAGE.count("```") // 2


@pytest.mark.parametrize("session", SESSION.findall(PAGE))
def test_every_command_prints_what_is_shown(
    session: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, shown in re.findall(r"^\$ engine (.*)\n((?:[^$].*\n)*)", session, re.MULTILINE):
        assert main(shlex.split(command)) == 0
        assert capsys.readouterr().out == shown
