"""A manifest after loading: validated, interpolated, every default filled in. Frozen data.

Only `engine.loading` makes these; everything else reads them. `config_overrides` and the like are
plain JSON data (dict, list, str, int, float, bool, None).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.model.ids import DEFAULT_DISPATCH_POINT, LOCAL

JsonObject = Mapping[str, Any]
DEFAULT_MAILBOX_LIMIT = 10_000


@dataclass(frozen=True)
class TlsSpec:
    """Paths of PEM files for a core behind TLS; empty when not used."""

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True)
class CoreSpec:
    """Which core serves the manifest's users: the embedded one, or the one at `address` (a URL)."""

    address: str = ""
    tls: TlsSpec = TlsSpec()

    @property
    def embedded(self) -> bool:
        """Tell whether this is the engine's own core."""
        return not self.address


@dataclass(frozen=True)
class SubflowSpec:
    """Who serves a subflow: `user_id` is `local`, a user's name in this manifest, or a hex id.

    None in `user_id` or `flow_endpoint` leaves what the class's defaults say.
    """

    user_id: str | None = None
    flow_endpoint: str | None = None
    config_overrides: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class AllowSpec:
    """Who may use a flow: get instances of it, and send messages to them.

    Each has user names, hex ids or `any`; None stands for the users of the manifest.
    """

    get_instance: tuple[str, ...] | None = None
    send: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RetriesSpec:
    """How often a message is tried in all, and the seconds before the second attempt.

    Each wait is twice as long as the one before, at most a minute.
    """

    attempts: int = 1
    backoff: float = 1.0


@dataclass(frozen=True)
class FlowSpec:
    """A flow that a user serves at an endpoint.

    `mailbox_limit` is how many messages one instance may have that are not finished. `input_schema`
    and `output_schema` are JSON Schemas; None leaves what the class says.
    """

    flow_class_name: str
    singleton: bool = False
    parallel_dispatch: bool = False
    dispatch_point: str = DEFAULT_DISPATCH_POINT
    config_overrides: JsonObject = field(default_factory=dict)
    subflows: Mapping[str, SubflowSpec] = field(default_factory=dict)
    allow: AllowSpec = AllowSpec()
    retries: RetriesSpec = RetriesSpec()
    mailbox_limit: int = DEFAULT_MAILBOX_LIMIT
    input_schema: JsonObject | None = None
    output_schema: JsonObject | None = None


@dataclass(frozen=True)
class MountSpec:
    """An instance that shall exist: of which endpoint, served by whom (as in SubflowSpec)."""

    flow_endpoint: str
    user_id: str = LOCAL
    config_overrides: JsonObject = field(default_factory=dict)
    initial_state: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class WorkersSpec:
    """How many dispatch worker processes per dispatch point; requests served at once."""

    dispatch: Mapping[str, int] = field(default_factory=lambda: {DEFAULT_DISPATCH_POINT: 1})
    get_instance: int = 1


@dataclass(frozen=True)
class UserSpec:
    """A user of the manifest. With `user_id` set it is somebody else's, only referred to.

    `jwt_file` is a path; `jwt` is the *expression* as written (such as `${oc.env:USER0_JWT}`),
    resolved only where the token is used, so that no secret is ever part of a manifest's data.
    """

    user_id: str = ""
    jwt: str = ""
    jwt_file: str = ""
    workers: WorkersSpec = field(default_factory=WorkersSpec)
    flows: Mapping[str, FlowSpec] = field(default_factory=dict)
    mounts: Mapping[str, MountSpec] = field(default_factory=dict)

    @property
    def foreign(self) -> bool:
        """Tell whether the user belongs to somebody else."""
        return bool(self.user_id)


@dataclass(frozen=True)
class Manifest:
    """What one file declares. `name` owns all that is created; `file` is its absolute path.

    `places` has file, line and column of `name`, of each flow endpoint and each mount, by the path
    that faults show, such as `users.user0.flows.x`. It is no part of what is declared.
    """

    name: str
    file: str
    core: CoreSpec = CoreSpec()
    users: Mapping[str, UserSpec] = field(default_factory=dict)
    places: Mapping[str, tuple[str, int, int]] = field(
        default_factory=dict, compare=False, repr=False
    )
