"""What runs flows and serves requests: in processes of the engine, or in threads of a notebook."""

from engine.workers.threads import (
    RunningWorker,
    run_dispatch_worker_thread,
    run_dispatch_worker_threads,
    run_get_instance_worker_thread,
)

__all__ = [
    "RunningWorker",
    "run_dispatch_worker_thread",
    "run_dispatch_worker_threads",
    "run_get_instance_worker_thread",
]
