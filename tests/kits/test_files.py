"""Files are replaced as a whole or not at all."""

from pathlib import Path

import pytest

from engine.kits.files import private_folder, write_atomically


def test_content_and_mode_are_as_asked(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_atomically(file, b"one")
    write_atomically(file, b"two", mode=0o640)
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_a_failed_write_leaves_the_old_content_and_no_debris(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    with pytest.raises(OSError, match="target"):
        write_atomically(folder, b"a folder cannot be replaced by a file")
    assert [found.name for found in tmp_path.iterdir()] == ["target"]


def test_a_private_folder_is_for_the_owner_only(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
