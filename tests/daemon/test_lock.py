"""One engine per ENGINE_HOME."""

import os
from pathlib import Path

import pytest

from engine.daemon.lock import EngineLock
from engine.model.errors import LockHeldError


def test_a_second_engine_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "engine.lock"
    with EngineLock(file):
        with pytest.raises(LockHeldError) as refused, EngineLock(file):
            pass
        assert refused.value.holder == f"pid {os.getpid()}"
        assert "--home" in refused.value.hint


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "engine.lock"
    for _ in range(2):
        with EngineLock(file):
            assert file.read_text() == str(os.getpid())
