"""§7.4: packages of operators: where they come from, and what is refused."""

import hashlib
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.core.fetching import Fetcher, FetchError
from engine.core.packages import Packages, check_name
from engine.core.refusals import Refusal
from tests.support.rpc import Code

TOML = '[package]\nentrypoint = "./run"\n'
GIT, TGZ, DOCKER = 2, 1, 3


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    folder = tmp_path / "inventory"
    folder.mkdir()
    return folder


def _packages(home: Path, inventory: Path | str, **more) -> Packages:
    return Packages(home, str(inventory), **{"allow_external": False, **more})


def _source(folder: Path, toml: str = TOML) -> Path:
    """Write a package's files."""
    folder.mkdir()
    (folder / "colink.toml").write_text(toml)
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    return folder


def _archive(inventory: Path, toml: str = TOML) -> str:
    """Pack a package beside the inventory and return the archive's sha256."""
    source = _source(inventory / "source", toml)
    with tarfile.open(inventory / "p.tar.gz", "w:gz") as archive:
        for file in source.iterdir():
            archive.add(file, file.name)
    return hashlib.sha256((inventory / "p.tar.gz").read_bytes()).hexdigest()


def _repository(inventory: Path) -> str:
    """Make a git repository beside the inventory, with two commits, and return the first."""
    folder = _source(inventory / "repository")
    git = partial(subprocess.run, cwd=folder, check=True, capture_output=True, text=True)
    git(["git", "init", "-q"])
    for text in ("first", "second"):
        (folder / "which").write_text(text)
        git(["git", "add", "."])
        git(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", text])
    return git(["git", "rev-parse", "HEAD~1"]).stdout.strip()


def _code(packages: Packages, **more) -> Code:
    with pytest.raises(Refusal) as caught:
        packages.prepare("p", **more)
    return caught.value.code


def test_a_folder_that_is_there_is_the_package(home: Path) -> None:
    (home / "protocols").mkdir(parents=True)
    folder = _source(home / "protocols" / "p")
    package = _packages(home, "").prepare("p")
    assert (package.folder, package.entrypoint) == (folder, "./run")


def test_the_archive_of_an_inventory_is_unpacked_once(home, inventory) -> None:
    digest = _archive(inventory)
    (inventory / "p.toml").write_text(
        f'[source.archive]\nurl = "p.tar.gz"\nsha256 = "{digest.upper()}"\n'
    )
    packages = _packages(home, inventory)
    package = packages.prepare("p")
    assert package.folder == home / "protocols" / "p"
    assert (package.folder / "run").stat().st_mode & 0o100
    (package.folder / "mine").touch()
    assert (packages.prepare("p").folder / "mine").exists()
    assert not (packages.prepare("p", fresh=True).folder / "mine").exists()


def test_a_url_and_this_machines_binary_come_first(home, inventory, monkeypatch) -> None:
    monkeypatch.setattr("engine.core.packages._platform", lambda: "linux-x86_64")
    _archive(inventory)
    (inventory / "p.toml").write_text(
        f'[binary.linux-x86_64]\nurl = "{(inventory / "p.tar.gz").as_uri()}"\n'
        '[source.archive]\nurl = "absent"\n'
    )
    assert _packages(home, inventory.as_uri()).prepare("p").entrypoint == "./run"


def test_a_git_repository_at_its_commit(home, inventory) -> None:
    commit = _repository(inventory)
    (inventory / "p.toml").write_text(
        f'[source.archive]\nurl = "absent"\n[source.git]\nurl = "repository"\ncommit = "{commit}"\n'
    )
    package = _packages(home, inventory).prepare("p", source_type=GIT)
    assert (package.folder / "which").read_text() == "first"


@pytest.fixture
def web(inventory: Path) -> Iterator[str]:
    """The inventory, served over HTTP on the loopback interface."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=inventory)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_inventory_over_http_on_this_machine(home, inventory, web) -> None:
    _archive(inventory)
    (inventory / "p.toml").write_text('[source.archive]\nurl = "p.tar.gz"\n')
    assert _packages(home, web).prepare("p").entrypoint == "./run"
    with pytest.raises(Refusal, match="404"):
        _packages(home, web).prepare("q")


@pytest.mark.parametrize(
    "toml",
    [
        "not toml",
        "",
        '[docker.image]\nname = "n"\ndigest = "d"\n',
        '[source.archive]\nurl = "absent"\n',
        f'[source.archive]\nurl = "p.tar.gz"\nsha256 = "{"0" * 64}"\n',
        '[source.archive]\nurl = "http://example.org/p.tar.gz"\n',
        '[source.archive]\nurl = "ftp://localhost/p.tar.gz"\n',
        '[source.archive]\nurl = "p.toml"\n',
        '[source.git]\nurl = "ext::touch evil"\n',
        '[source.git]\nurl = "repository"\ncommit = "--evil"\n',
        '[source.git]\nurl = "repository"\ncommit = "0123456789"\n',
    ],
)
def test_what_cannot_be_had_is_not_found_and_leaves_nothing(home, inventory, toml) -> None:
    _archive(inventory)
    _repository(inventory)
    (inventory / "p.toml").write_text(toml)
    assert _code(_packages(home, inventory)) is Code.NOT_FOUND
    assert not list((home / "protocols").glob("*"))


@pytest.mark.parametrize("toml", ["", "x", "[package]\n", '[package]\ndocker_image = "i"\n'])
def test_a_package_that_starts_no_program_is_not_found(home, toml) -> None:
    (home / "protocols").mkdir(parents=True)
    _source(home / "protocols" / "p", toml)
    assert _code(_packages(home, "")) is Code.NOT_FOUND


def test_without_a_package_or_an_inventory_nothing_is_written(home: Path) -> None:
    assert _code(_packages(home, "")) is Code.NOT_FOUND
    assert _code(Packages(None, "", allow_external=True)) is Code.NOT_FOUND
    assert not home.exists()


def test_the_install_script_runs_once_and_may_fail(home: Path) -> None:
    (home / "protocols").mkdir(parents=True)
    folder = _source(
        home / "protocols" / "p", TOML + "install_script = 'echo made; echo x >> done; test -e ok'"
    )
    packages = _packages(home, "")
    assert _code(packages) is Code.INTERNAL
    assert (folder / "install.log").read_text() == "made\n"
    (folder / "ok").touch()
    packages.prepare("p")
    packages.prepare("p")
    assert (folder / "done").read_text() == "x\nx\n"


def test_sources_of_requests_are_taken_only_if_that_is_allowed(home, inventory) -> None:
    _archive(inventory)
    _repository(inventory)
    archive, repository = str(inventory / "p.tar.gz"), str(inventory / "repository")
    closed, opened = _packages(home, ""), _packages(home, "", allow_external=True)
    assert _code(closed, source=archive, source_type=TGZ) is Code.PERMISSION_DENIED
    for kind in (0, DOCKER):
        assert _code(opened, source=archive, source_type=kind) is Code.INVALID_ARGUMENT
    opened.prepare("p", source=archive, source_type=TGZ)
    package = opened.prepare("p", source=repository, source_type=GIT, fresh=True)
    assert (package.folder / "which").read_text() == "second"


@pytest.mark.parametrize("name", ["", ".", "..", "../p", "a/b", "a\\b", "-p", ".lock", "a\0b"])
def test_names_that_are_paths_are_malformed(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_name(name)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("address", ["relative", "file://host/x", "http://10.0.0.1/x", "gopher:x"])
def test_other_machines_are_not_asked(address: str) -> None:
    with pytest.raises(FetchError):
        Fetcher(allow_network=False).allowed(address)
