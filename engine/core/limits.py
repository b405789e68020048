"""What a caller may ask for at most.

Upstream has no limits at all (§12), so the defaults are far above what stock clients do. Each limit
is a setting (`--max-key-bytes` or COLINK_SERVER_MAX_KEY_BYTES); 0 lifts it. `guard` holds to them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes; each has its gRPC status when it is passed."""

    max_message_bytes: float = 256 * 2**20
    """A whole request, as gRPC receives it: RESOURCE_EXHAUSTED."""
    max_payload_bytes: float = 128 * 2**20
    """The value of one entry, or the parameter of a task: RESOURCE_EXHAUSTED."""
    max_key_bytes: float = 4096
    """A key name, protocol name, role or reason: INVALID_ARGUMENT."""
    max_key_depth: float = 128
    """The colons of a key name, each of which is a directory: INVALID_ARGUMENT."""
    max_calls_per_second: float = 10_000.0
    """Of one user (or one address, for nobody), over ten seconds: RESOURCE_EXHAUSTED."""
    max_queues: float = 100_000.0
    """The queues that a user has at once: RESOURCE_EXHAUSTED."""
    max_queue_messages: float = 1_000_000.0
    """The messages that wait in one queue: it ends, as by Unsubscribe, and its readers are told so.
    For RabbitMQ that is a matter of its own policies."""
    max_token_days: float = 366.0
    """The lifetime of tokens: those asked for longer are made for this long."""
