"""What shells offer: commands, options, names of manifests, targets. Nothing is written for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STATUS = {
    "core": {},
    "manifests": [
        {
            "users": {
                "user0": {
                    "workers": [{"name": "coflows_dispatch-0"}],
                    "flows": {"echo": {}},
                    "mounts": {},
                },
                "user1": {"workers": [], "flows": {}, "mounts": {"twice": {}}},
            }
        }
    ],
}


@pytest.fixture
def offered(run, monkeypatch):
    """Return what is offered, as bash asks for it, for the last of the words."""

    def offered(*words: str) -> list[str]:
        monkeypatch.setenv("_ENGINE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["engine", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        code, out, err = run()
        assert (code, err) == (0, "")
        return out.split()

    return offered


def test_commands_and_options(offered):
    assert offered("his") == ["history"]
    assert {"validate", "config", "completion"} <= set(offered(""))
    assert "--explain" in offered("config", "--e")
    assert offered("completion", "") == ["bash", "zsh", "fish"]


def test_applied_manifests_and_those_with_a_history(offered, home):
    home.applied.write_text(json.dumps([{"name": "shop"}, {"name": "other"}]))
    (home.history / "older").mkdir(parents=True)
    assert offered("down", "") == ["other", "shop"]
    assert offered("status", "s") == ["shop"]
    assert offered("rollback", "") == ["older"]


def test_targets_users_and_logs(offered, engine):
    engine.answers["GET /v1/status"] = STATUS
    assert offered("call", "") == ["user0/echo", "user1/twice"]
    assert offered("call", "user1/") == ["user1/twice"]
    assert offered("storage", "") == ["user0", "user1"]
    assert offered("users", "token", "user1") == ["user1"]
    assert offered("logs", "user0") == ["user0", "user0/coflows_dispatch-0"]


def test_flow_classes(offered):
    assert "reverse_number.ReverseNumberAtomicFlow" in offered("flows", "reverse")


def test_without_an_engine_or_a_home_nothing_is_offered_and_nothing_is_made(offered, tmp_path):
    home = tmp_path / "none"
    assert offered("--home", str(home), "down", "") == []
    assert offered("--home", str(home), "call", "") == []
    assert not home.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(run, shell, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, _ = run("completion", shell)
    assert code == 0
    assert f"_ENGINE_COMPLETE=complete_{shell}" in out
    assert list(tmp_path.iterdir()) == []
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True)


def test_bash_completes_with_the_script(run, home, tmp_path):
    _, script, _ = run("completion", "bash")
    command = tmp_path / "engine"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine.cli.main "$@"\n')
    command.chmod(0o755)
    ask = "COMP_WORDS=(engine val); COMP_CWORD=1; _engine_completion engine; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (done.stdout, done.stderr) == ("validate\n", "")
