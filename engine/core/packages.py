"""Packages of protocol operators on this machine: found, fetched, unpacked, installed (§7.4).

A package is a folder `$COLINK_HOME/protocols/<name>` with a `colink.toml` in it. One that is not
there comes from the inventory: a folder, or a file:// or http:// URL, with a `<name>.toml` that
says where the package is. Nothing is fetched from another machine unless the core was told so, and
containers are never started. Everything here blocks: run it in a thread.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.colink import wire
from engine.core.fetching import Fetcher, FetchError
from engine.core.refusals import conflict, denied, malformed, not_found
from engine.kits.files import private_folder

_SOURCES = wire.StartProtocolOperatorRequest.DESCRIPTOR.fields_by_name["source_type"].enum_type
_NONE, _TGZ, _GIT, _DOCKER = (
    _SOURCES.values_by_name[name].number for name in ("NONE", "TGZ", "GIT", "DOCKER")
)
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_INSTALLED = ".install_timestamp"
_SECONDS = 600


@dataclass(frozen=True)
class Package:
    """An installed package: its folder, and the shell text that starts an operator of it."""

    folder: Path
    entrypoint: str


class Packages:
    """The packages below `home`, which is $COLINK_HOME; several cores may share it."""

    def __init__(self, home: Path | None, inventory: str, *, allow_external: bool) -> None:
        self._home = home
        self._inventory = inventory.rstrip("/")
        self._allow_external = allow_external
        self._fetcher = Fetcher(allow_network=allow_external)

    def prepare(
        self, name: str, *, source_type: int = 0, source: str = "", fresh: bool = False
    ) -> Package:
        """Return the package `name`, fetched and installed if need be; `fresh` drops what is there.

        Refused (NOT_FOUND) when it cannot be found, (INTERNAL) when its install script fails.
        """
        if self._home is None:
            raise not_found(f"There is no package {name!r}: neither COLINK_HOME nor HOME is set.")
        folder = self._home / "protocols" / name
        if not (source or self._inventory or (folder / "colink.toml").is_file()):
            raise not_found(
                f"There is no package {name!r} in {folder.parent}, and no inventory to look it up:"
                " name one with --pom-protocol-inventory."
            )
        with _locked(self._home / ".lock", name):
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            if not (folder / "colink.toml").is_file():
                self._obtain(name, folder, source_type, source)
            return _installed(name, folder)

    def _obtain(self, name: str, folder: Path, source_type: int, source: str) -> None:
        """Put the package into `folder`, whole or not at all."""
        wanted = self._given(source_type, source) if source else self._listed(name, source_type)
        parent = folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".") as temporary:
            unpacked = Path(temporary, "package")
            try:
                self._unpack(wanted, unpacked, Path(temporary))
            except (FetchError, OSError, tarfile.TarError, subprocess.SubprocessError) as error:
                raise not_found(f"The package {name!r} cannot be had: {error}.") from error
            if not (unpacked / "colink.toml").is_file():
                raise not_found(f"What the inventory gives for {name!r} has no colink.toml.")
            shutil.rmtree(folder, ignore_errors=True)
            unpacked.rename(folder)

    def _given(self, source_type: int, source: str) -> Mapping[str, str]:
        """Return what a request itself names."""
        if not self._allow_external:
            raise denied("This core takes packages from its inventory only.")
        if source_type == _TGZ:
            return {"archive": source, "sha256": ""}
        if source_type == _GIT:
            return {"git": source, "commit": ""}
        raise malformed("A source is an archive or a git repository, and its type says so.")

    def _listed(self, name: str, source_type: int) -> Mapping[str, str]:
        """Return what the inventory says of a package: its archive, or its git repository."""
        try:
            text = self._fetcher.read(f"{self._inventory}/{name}.toml").decode()
            found = tomllib.loads(text)
        except (FetchError, ValueError) as error:
            raise not_found(f"The inventory has no package {name!r}: {error}.") from error
        binary = _table(found, "binary", _platform())
        archive, git = _table(found, "source", "archive"), _table(found, "source", "git")
        if source_type in (_NONE, _TGZ):
            for table in (binary, archive):
                if table:
                    return {"archive": self._beside(table.get("url")), **table}
        if source_type in (_NONE, _GIT) and git:
            return {"git": self._beside(git.get("url")), **git}
        raise not_found(f"The inventory has nothing for {name!r} that runs here ({_platform()}).")

    def _beside(self, url: Any) -> str:
        """Return an address that the inventory gives, relative ones as beside the inventory."""
        text = str(url or "")
        is_relative = "://" not in text and not text.startswith("/")
        return f"{self._inventory}/{text}" if is_relative else text

    def _unpack(self, wanted: Mapping[str, str], folder: Path, temporary: Path) -> None:
        if "archive" in wanted:
            archive = temporary / "archive"
            self._fetcher.download(wanted["archive"], archive)
            expected = wanted.get("sha256", "")
            if expected and hashlib.sha256(archive.read_bytes()).hexdigest() != expected.lower():
                raise FetchError(f"{wanted['archive']} has another sha256 than the inventory says")
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")
            return
        repository, commit = self._fetcher.allowed(wanted["git"]), wanted.get("commit", "")
        _git("clone", "--quiet", "--", repository, str(folder))
        if commit:
            if _COMMIT.fullmatch(commit) is None:
                raise FetchError(f"{commit!r} is no commit")
            _git("-C", str(folder), "checkout", "--quiet", commit)


def _installed(name: str, folder: Path) -> Package:
    """Return the package in `folder`, after running its install script if that was not done."""
    try:
        settings = tomllib.loads((folder / "colink.toml").read_text())
    except (OSError, ValueError) as error:
        raise not_found(f"The colink.toml of {name!r} cannot be read: {error}.") from error
    package = _table(settings, "package")
    entrypoint, script = package.get("entrypoint"), package.get("install_script")
    if not isinstance(entrypoint, str):
        reason = "is a container" if "docker_image" in package else "has no entrypoint"
        raise not_found(f"The package {name!r} {reason}; this core starts programs only.")
    if isinstance(script, str) and not (folder / _INSTALLED).exists():
        with (folder / "install.log").open("ab") as log:
            done = _run_script(script, folder, log)
        if done != 0:
            raise conflict(
                f"The install script of {name!r} failed ({done}): see {folder}/install.log."
            )
        (folder / _INSTALLED).touch()
    return Package(folder, entrypoint)


def _run_script(script: str, folder: Path, log: Any) -> int:
    try:
        return subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=operator_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise conflict(f"The install script cannot be run: {error}.") from error


def operator_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the core's environment without its own settings, which may have passwords in them."""
    return {
        name: value for name, value in environment.items() if not name.startswith("COLINK_SERVER_")
    }


def check_name(name: str) -> None:
    """Refuse (INVALID_ARGUMENT) a name that would leave the folder of packages."""
    if not name or name.startswith((".", "-")) or re.search(r"[/\\\0]", name):
        raise malformed("The name of an operator has no path in it.")


def _git(*arguments: str) -> None:
    environment = operator_environment(os.environ) | {"GIT_TERMINAL_PROMPT": "0"}
    subprocess.run(
        ["git", "-c", "protocol.ext.allow=never", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        check=True,
    )


def _table(found: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    table: Any = found
    for name in path:
        table = table.get(name) if isinstance(table, Mapping) else None
    return table if isinstance(table, Mapping) else {}


def _platform() -> str:
    """Return this machine as inventories name it, such as linux-x86_64."""
    system = {"darwin": "macos"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    return f"{system}-{ {'arm64': 'aarch64', 'amd64': 'x86_64'}.get(machine, machine) }"


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Keep all others, in other cores too, from the package `name`."""
    try:
        private_folder(folder)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_found(f"The folder of packages cannot be written: {error}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise conflict(f"The package {name!r} cannot be prepared: {error}.") from error
    finally:
        os.close(descriptor)
