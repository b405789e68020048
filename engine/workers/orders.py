"""What the engine tells its worker processes to be: the first line on their socket pair."""

from typing import Any

import msgspec

from engine.model.manifest import TlsSpec


class WorkerOrders(msgspec.Struct, frozen=True, kw_only=True):
    """What a dispatch worker process shall be. `digest` only comes back in its status."""

    name: str
    address: str
    jwt: str
    dispatch_point: str
    tls: TlsSpec = TlsSpec()
    environment: dict[str, str] = {}
    digest: str = ""
    kind: str = "dispatch"


class OperatorUser(msgspec.Struct, frozen=True, kw_only=True):
    """One user's operators: how many get_instance requests at once, and whether to schedule."""

    name: str
    address: str
    jwt: str
    get_instance: int
    scheduler: bool
    tls: TlsSpec = TlsSpec()


class OperatorsOrders(msgspec.Struct, frozen=True, kw_only=True):
    """All users served by the process, and the description of the installed flow classes."""

    users: tuple[OperatorUser, ...]
    catalog: dict[str, Any]
    kind: str = "operators"
