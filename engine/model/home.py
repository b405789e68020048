"""ENGINE_HOME: the one folder on disk that the engine writes, and what stands where in it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The layout of an ENGINE_HOME at `path` (absolute). Pure: nothing is created here."""

    path: Path

    @property
    def socket(self) -> Path:
        """The Unix socket on which the background engine answers."""
        return self.path / "engine.sock"

    @property
    def lock(self) -> Path:
        """Locked by the running engine; holds its pid as text."""
        return self.path / "engine.lock"

    @property
    def core(self) -> Path:
        """The embedded core's folder: its storage, queue and secrets."""
        return self.path / "core"

    @property
    def core_port(self) -> Path:
        """The port of the embedded core, kept so that its address stays the same."""
        return self.path / "core.port"

    @property
    def identities(self) -> Path:
        """Private keys of the users, one file each, mode 0600."""
        return self.path / "identities"

    @property
    def applied(self) -> Path:
        """Which manifests are applied, and the last good text of each."""
        return self.path / "applied.json"

    @property
    def history(self) -> Path:
        """The generations of the manifests that were applied: a folder for each manifest."""
        return self.path / "history"

    @property
    def events(self) -> Path:
        """What the engine did and why, a JSON object a line."""
        return self.path / "events.ndjson"

    @property
    def logs(self) -> Path:
        """The folder of all logs."""
        return self.path / "logs"

    @property
    def engine_log(self) -> Path:
        """What the background engine itself prints."""
        return self.logs / "engine.log"

    @property
    def core_log(self) -> Path:
        """What the embedded core prints."""
        return self.logs / "core.log"

    @property
    def operators_log(self) -> Path:
        """What the get_instance and scheduler operators print."""
        return self.logs / "operators.log"

    def worker_log(self, user: str, worker: str) -> Path:
        """What a dispatch worker, and the flows it runs, print."""
        return self.logs / "workers" / user / f"{worker}.log"
