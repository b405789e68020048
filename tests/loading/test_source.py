"""Files that are not what they should be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.hooks import Catalog
from engine.loading import load, load_text
from engine.model.errors import Fault, InvalidManifestError

GOOD = "apiVersion: engine/v1\nusers:\n  user0: {}\n"
BAD = "apiVersion: engine/v1\nusers:\n  user0: {flow: {}}\n"


def faults_of(file: Path, catalog: Catalog) -> tuple[Fault, ...]:
    with pytest.raises(InvalidManifestError) as caught:
        load(file, catalog, {})
    return caught.value.faults


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_missing_file(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "none.yaml"
    (fault,) = faults_of(file, catalog)
    assert str(fault) == f"{file}: There is no such file. Write one to begin with: engine init"


def test_a_folder(tmp_path: Path, catalog: Catalog) -> None:
    (fault,) = faults_of(tmp_path, catalog)
    assert str(fault) == f"{tmp_path}: This is a folder. Name the manifest in it."


def test_a_device(catalog: Catalog) -> None:
    (fault,) = faults_of(Path("/dev/zero"), catalog)
    assert fault.message == "This is not a file."


def test_a_file_below_a_file(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "a").write_text(GOOD)
    (fault,) = faults_of(tmp_path / "a" / "b.yaml", catalog)
    assert fault.message == "The file cannot be read: Not a directory."


def test_a_file_that_may_not_be_read(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text(GOOD)
    file.chmod(0)
    with as_nobody():
        (fault,) = faults_of(file, catalog)
    assert str(fault) == f"{file}: The file may not be read. Let your user read it: chmod u+r"


def test_bytes_that_are_not_utf8_are_pointed_at(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("apiVersion: engine/v1\nname: käse\n".encode("latin-1"))
    (fault,) = faults_of(file, catalog)
    assert (fault.line, fault.column) == (2, 8)
    assert fault.message == "The byte 0xe4 is not UTF-8."


def test_utf16_is_not_utf8(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "wide.yaml"
    file.write_bytes(GOOD.encode("utf-16"))
    (fault,) = faults_of(file, catalog)
    assert (fault.line, fault.column, fault.message) == (1, 1, "The byte 0xff is not UTF-8.")


def test_a_control_character_is_pointed_at(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "control.yaml"
    file.write_bytes(b"apiVersion: engine/v1\nname: a\x00b\n")
    (fault,) = faults_of(file, catalog)
    assert (fault.line, fault.column) == (2, 8)
    assert fault.message == "The character U+0000 is not allowed in YAML."


def test_a_file_that_is_too_large(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as opened:
        opened.truncate(32 * 1024 * 1024 + 1)
    (fault,) = faults_of(file, catalog)
    assert fault.message == "The file is larger than 32 MiB."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_breaks_do_not_matter(
    tmp_path: Path, catalog: Catalog, encoding: str, line_break: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(GOOD.replace("\n", line_break).encode(encoding))
    assert list(load(file, catalog, {}).users) == ["user0"]
    file.write_bytes(BAD.replace("\n", line_break).encode(encoding))
    (fault,) = faults_of(file, catalog)
    assert (fault.line, fault.column) == (3, 11)


def test_the_line_of_a_tab_is_told_with_crlf(catalog: Catalog) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        load_text("users:\r\n\tuser0: {}\r\n", Path("f.yaml"), catalog, {})
    assert str(caught.value) == "f.yaml:2:1: A tab cannot indent YAML. Use blanks."


def test_a_pipe_is_read_like_a_file(tmp_path: Path, catalog: Catalog) -> None:
    read, write = os.pipe()
    os.write(write, GOOD.replace("users", "name: piped\nusers").encode())
    os.close(write)
    try:
        assert load(Path(f"/dev/fd/{read}"), catalog, {}).name == "piped"
    finally:
        os.close(read)


def test_the_name_comes_from_the_file(tmp_path: Path, catalog: Catalog) -> None:
    for name in ("demo.yaml", "demo.yml", "demo.json", "demo"):
        file = tmp_path / name
        file.write_text(GOOD)
        assert load(file, catalog, {}).name == "demo"


def test_a_file_name_that_cannot_be_a_manifests_name(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "my demo.yaml"
    file.write_text(GOOD)
    (fault,) = faults_of(file, catalog)
    assert str(fault) == (
        f"{file}: name: The file's name, my demo.yaml, cannot be the manifest's. "
        "Write a name in it: name: <name>."
    )
