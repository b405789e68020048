"""The cores that manifests use: the embedded one, a child process, and real ones by address."""

import sys

from engine.colink.client import Client, Connections
from engine.controller.events import EventLog
from engine.kits.files import private_folder, write_atomically
from engine.kits.ports import free_port, is_free
from engine.model.errors import CoreUnavailableError
from engine.model.home import Home
from engine.model.manifest import CoreSpec, TlsSpec
from engine.model.status import CoreStatus, State
from engine.workers.supervisor import ProcessSpec, Supervisor

CORE = "core"
"""The name of the embedded core's process."""


class Cores:
    """Starts the embedded core when it is first needed, and connects to any core."""

    def __init__(
        self, home: Home, supervisor: Supervisor, connections: Connections, events: EventLog
    ) -> None:
        self._home = home
        self._supervisor = supervisor
        self._connections = connections
        self._events = events
        self.remote: dict[str, str] = {}
        """Address of each real core in use, and what is wrong with it ("" when nothing is)."""

    async def start_embedded(self, timeout: float = 30.0) -> None:
        """Make the embedded core run; it is kept running from then on.

        Raises EngineError with the core's last words when it cannot start.
        """
        private_folder(self._home.core)
        status = self._supervisor.status(CORE)
        if status is not None and status.state is State.FAILED and not is_free(self._known_port()):
            await self._supervisor.remove(CORE)  # in vain at this port, so it gets another one
        spec = self._supervisor.spec(CORE) or self._spec()
        await self._supervisor.ensure(spec, timeout)

    async def stop_embedded(self) -> None:
        """Stop the embedded core; its data stay."""
        await self._supervisor.remove(CORE)

    @property
    def embedded_ready(self) -> bool:
        """Tell whether the embedded core runs and answers."""
        status = self._supervisor.status(CORE)
        return status is not None and status.state is State.READY

    @property
    def embedded_incarnation(self) -> int:
        """Return a number that changes when the embedded core is another process; 0: none runs."""
        status = self._supervisor.status(CORE)
        return status.pid if status is not None and status.state is State.READY else 0

    @property
    def embedded_address(self) -> str:
        """Return the embedded core's address; raises CoreUnavailableError when it does not run."""
        return str(self._told("address"))

    def host(self) -> Client:
        """Return a client of the embedded core with the host's privilege."""
        return self._connections.client(self.embedded_address, str(self._told("host_token")))

    def client(self, core: CoreSpec, token: str) -> Client:
        """Return a client of `core` for the bearer of `token`."""
        address = self.embedded_address if core.embedded else core.address
        return self._connections.client(address, token, core.tls)

    def anonymous(self, core: CoreSpec) -> Client:
        """Return a client of `core` that may only ask for its public key."""
        return self.client(core, "")

    def address(self, core: CoreSpec) -> tuple[str, TlsSpec]:
        """Return where `core` is reached, and how."""
        return (self.embedded_address if core.embedded else core.address), core.tls

    def status(self) -> CoreStatus:
        """Return what `engine status` says of the core: the embedded one, if it is in use."""
        process = self._supervisor.status(CORE)
        if process is not None:
            return CoreStatus(
                "embedded",
                str(process.told.get("address", "")),
                process.state is State.READY,
                process.message,
            )
        if self.remote:
            address, message = next(iter(self.remote.items()))
            return CoreStatus("remote", address, not message, message)
        return CoreStatus("embedded", "", ready=False)

    def _told(self, key: str) -> object:
        status = self._supervisor.status(CORE)
        if status is None or key not in status.told:
            raise CoreUnavailableError(
                "The embedded core is not running.",
                f"Its log is {self._home.core_log}." if status is not None else "",
            )
        return status.told[key]

    def _spec(self) -> ProcessSpec:
        port = self._port()
        return ProcessSpec(
            name=CORE,
            command=(
                sys.executable,
                *("-m", "engine.core.main", "--child"),
                *("--home", str(self._home.core), "--port", str(port)),
            ),
            log=self._home.core_log,
            folder=self._home.core,
        )

    def _port(self) -> int:
        """Return the port that this home's core always has; choose one at the first start.

        When another program has taken it meanwhile, a new one is chosen, and told as an event.
        """
        known = self._known_port()
        if known and is_free(known):
            return known
        port = free_port()
        write_atomically(self._home.core_port, str(port).encode())
        if known:
            self._events.add(
                "CoreMoved",
                f"port {known} is in use by another program; the core is now at port {port}",
                resource=CORE,
            )
        return port

    def _known_port(self) -> int:
        """Return the port that this home's core had last, 0 if it never had one."""
        try:
            return int(self._home.core_port.read_text())
        except (OSError, ValueError):
            return 0
