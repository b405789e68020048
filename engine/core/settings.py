"""What the core is told at its start: upstream's flags and environment (§3.5), and a few more."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.model.errors import UsageError

DEFAULT_PORT = 2021
_ENVIRONMENT = "COLINK_SERVER_"


@dataclass(frozen=True)
class Settings:
    """`home` is where the core keeps everything. `port` 0 means any free one."""

    home: Path = field(default_factory=Path.cwd)
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    core_uri: str = ""
    mq_uri: str = ""
    mq_api: str = ""
    mq_prefix: str = "colink"
    cert: str = ""
    key: str = ""
    ca: str = ""
    inter_core_ca: str = ""
    inter_core_cert: str = ""
    inter_core_key: str = ""
    inter_core_reverse_mode: bool = False
    force_gen_jwt_secret: bool = False
    force_gen_priv_key: bool = False
    colink_home: Path | None = None
    retention_hours: float = 168.0
    """How long old history, ended tasks and transferred messages are kept; 0: for ever."""
    child: bool = False

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key) or (self.ca and not self.cert):
            raise UsageError("TLS needs both --cert and --key; --ca is for clients' certificates.")
        if self.mq_uri and not self.mq_uri.startswith("redis"):
            raise UsageError(
                "This core speaks to Redis or Valkey only.",
                "Leave --mq-uri out to use its own Valkey, or name a redis:// one.",
            )

    def uri(self, port: int) -> str:
        """Return the address that operators and clients reach the core at, listening on `port`."""
        scheme = "https" if self.cert else "http"
        return self.core_uri or f"{scheme}://127.0.0.1:{port}"

    @property
    def queue_host(self) -> str:
        """The host under which clients reach the core's own Valkey: that of the core's address."""
        return urlsplit(self.core_uri).hostname or "127.0.0.1"


def parse(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line, its gaps filled from the environment.

    Prints a usage message and raises SystemExit for unknown flags; raises UsageError for settings
    that do not go together.
    """
    given = _parser().parse_args(arguments)
    texts: dict[str, Any] = {
        name: getattr(given, name)
        if getattr(given, name) is not None
        else environment.get(_ENVIRONMENT + name.upper(), default)
        for name, default in _TEXTS.items()
    }
    flags: dict[str, Any] = {
        name: getattr(given, name) or _is_true(environment.get(_ENVIRONMENT + name.upper(), ""))
        for name in _FLAGS
    }
    return Settings(
        home=Path(given.home).resolve(),
        port=_port(texts.pop("port")),
        colink_home=_colink_home(environment),
        retention_hours=float(given.retention_hours),
        child=given.child,
        **texts,
        **flags,
    )


_TEXTS = {
    "address": "127.0.0.1",
    "port": str(DEFAULT_PORT),
    "mq_uri": "",
    "mq_api": "",
    "mq_prefix": "colink",
    "core_uri": "",
    "cert": "",
    "key": "",
    "ca": "",
    "inter_core_ca": "",
    "inter_core_cert": "",
    "inter_core_key": "",
}
_FLAGS = ("force_gen_jwt_secret", "force_gen_priv_key", "inter_core_reverse_mode")
_SHORT = {"address": "-a", "port": "-p"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="colink-server",
        description="A CoLink core with its own storage and message queue.",
        epilog="Every flag but --home can also be set as COLINK_SERVER_<FLAG> in the environment.",
    )
    for name, default in _TEXTS.items():
        short = [_SHORT[name]] if name in _SHORT else []
        parser.add_argument(
            *short, _flag(name), default=None, help=f"default: {default}" if default else None
        )
    for name in _FLAGS:
        parser.add_argument(_flag(name), action="store_true")
    # Upstream's flags of its package manager: built-in operators need no inventory.
    parser.add_argument("--pom-protocol-inventory", help="accepted; operators are built in")
    parser.add_argument("--pom-allow-external-source", action="store_true", help="accepted")
    parser.add_argument("--home", default=".", help="where everything is kept; default: here")
    parser.add_argument(
        "--retention-hours", type=float, default=Settings.retention_hours, help="0: keep for ever"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) < 65536:
        raise UsageError(f"{text!r} is not a port.")
    return int(text)


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes")


def _colink_home(environment: Mapping[str, str]) -> Path | None:
    if environment.get("COLINK_HOME"):
        return Path(environment["COLINK_HOME"])
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - may have no home
    return Path(home, ".colink") if home != "~" else None
