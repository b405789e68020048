"""What the core is told at its start: upstream's flags and environment (§3.5), and a few more."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.core.limits import Limits
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
    """How long ended tasks and transferred messages are kept; 0: for ever."""
    history_hours: float = 0.0
    """How long old versions and deleted entries of users are kept; 0: for ever."""
    lock_lease_seconds: float = 3600.0
    """After this long a lock (§7.3) may be taken from who holds it; 0: never."""
    allow_internal_writes: bool = False
    """Let users write all of `_internal:`, as upstream does."""
    limits: Limits = field(default_factory=Limits)
    pom_protocol_inventory: str = ""
    """Where packages of operators are found: a folder, or a file:// or http:// URL."""
    pom_allow_external_source: bool = False
    """Take packages from where StartProtocolOperator says, also over the network."""
    child: bool = False

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key) or (self.ca and not self.cert):
            raise UsageError("TLS needs both --cert and --key; --ca is for clients' certificates.")
        if bool(self.inter_core_cert) != bool(self.inter_core_key):
            raise UsageError("TLS between cores needs both --inter-core-cert and --inter-core-key.")
        scheme = urlsplit(self.mq_uri).scheme
        if self.mq_uri and scheme not in ("redis", "rediss", "amqp", "amqps"):
            raise UsageError(
                f"--mq-uri begins with {scheme or 'no scheme'}, not with redis or amqp.",
                "Leave it out to use the core's own Valkey, or name a redis:// or amqp:// server.",
            )
        if scheme.startswith("amqp") and urlsplit(self.mq_api).scheme not in ("http", "https"):
            raise UsageError(
                "RabbitMQ needs --mq-api, the address of its management API, too.",
                "Such as http://guest:guest@127.0.0.1:15672/api.",
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
    numbers: dict[str, Any] = {
        name: _number(
            name,
            getattr(given, name) or environment.get(_ENVIRONMENT + name.upper(), str(default)),
        )
        for name, (default, _) in _NUMBERS.items()
    }
    limits = Limits(**{one.name: numbers.pop(one.name) for one in fields(Limits)})
    return Settings(
        home=Path(given.home).resolve(),
        port=_port(texts.pop("port")),
        colink_home=colink_home(environment),
        limits=limits,
        pom_protocol_inventory=given.pom_protocol_inventory
        or environment.get("COLINK_POM_PROTOCOL_INVENTORY", ""),
        pom_allow_external_source=given.pom_allow_external_source
        or _is_true(environment.get("COLINK_POM_ALLOW_EXTERNAL_SOURCE", "")),
        child=given.child,
        **numbers,
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
_HELP = {
    "mq_uri": "a redis:// or amqp:// server instead of the core's own Valkey;",
    "mq_api": "RabbitMQ's management API, such as http://guest:guest@127.0.0.1:15672/api;",
}
_FLAGS = (
    *("force_gen_jwt_secret", "force_gen_priv_key", "inter_core_reverse_mode"),
    "allow_internal_writes",
)
_NUMBERS = {
    "retention_hours": (Settings.retention_hours, "how long ended tasks and messages are kept"),
    "history_hours": (Settings.history_hours, "how long old versions of entries are kept"),
    "lock_lease_seconds": (Settings.lock_lease_seconds, "after which a lock may be taken over"),
    "max_message_bytes": (Limits.max_message_bytes, "of a whole request"),
    "max_payload_bytes": (Limits.max_payload_bytes, "of an entry's value or a task's parameter"),
    "max_key_bytes": (Limits.max_key_bytes, "of a key name, protocol name or role"),
    "max_key_depth": (Limits.max_key_depth, "colons in a key name"),
    "max_calls_per_second": (Limits.max_calls_per_second, "of one user, over ten seconds"),
    "max_queues": (Limits.max_queues, "subscriptions of one user at once"),
    "max_queue_messages": (Limits.max_queue_messages, "that wait in one queue until it is ended"),
    "max_token_days": (Limits.max_token_days, "the longest lifetime of a token"),
}
_SHORT = {"address": "-a", "port": "-p"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="colink-server",
        description="A CoLink core with its own storage and message queue.",
        epilog="Every flag but --home can also be set as COLINK_SERVER_<FLAG> in the environment;"
        " those of --pom as COLINK_POM_<FLAG>.",
    )
    for name, default in _TEXTS.items():
        short = [_SHORT[name]] if name in _SHORT else []
        parser.add_argument(*(*short, _flag(name)), help=" ".join(_help(name, default)) or None)
    for name in _FLAGS:
        parser.add_argument(_flag(name), action="store_true")
    for name, (default_number, what) in _NUMBERS.items():
        parser.add_argument(
            _flag(name), metavar="N", help=f"{what}; default: {default_number:g}, 0: no limit"
        )
    parser.add_argument(
        "--pom-protocol-inventory",
        metavar="PLACE",
        help="where packages of operators are found: a folder, or a file:// or http:// URL",
    )
    parser.add_argument(
        "--pom-allow-external-source",
        action="store_true",
        help="take packages from where a request says, also over the network",
    )
    parser.add_argument("--home", default=".", help="where everything is kept; default: here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _help(name: str, default: str) -> list[str]:
    return [
        *([_HELP[name]] if name in _HELP else []),
        *([f"default: {default}"] if default else []),
    ]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{_flag(name)} is to be a number from 0 on, not {text!r}.")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) < 65536:
        raise UsageError(f"{text!r} is not a port.")
    return int(text)


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes")


def colink_home(environment: Mapping[str, str]) -> Path | None:
    """Return $COLINK_HOME, else ~/.colink, else None (§3.5)."""
    if environment.get("COLINK_HOME"):
        return Path(environment["COLINK_HOME"])
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - may have no home
    return Path(home, ".colink") if home != "~" else None
