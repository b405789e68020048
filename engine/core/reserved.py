"""The names below `_internal:` that users may write: those that stock SDKs and operators do.

Upstream lets a user's JWT, which every operator holds, rewrite anything (§12). All other names
below `_internal:` are the core's own: consents, queues, instances, and what it keeps for tasks.
"""

import re

from engine.core.refusals import denied

_INTERNAL = "_internal:"
_STOCK = re.compile(
    r"_internal:(?:"
    # The address book: import_guest_jwt, import_core_addr, and the registry (§6.5, §8.3).
    r"known_users:[^:]+:(?:core_addr|guest_jwt|forwarding_user_id)"
    # An operator's start: its init flag and the queue it shares (§7.1).
    r"|protocols:.+:(?:_is_initialized|operator_mq)"
    # Which operator took a task, and that it lives (§6.4, §7.2; Rust SDK).
    r"|task_po_mapping:[^:]+"
    r"|protocol_operator_instances:[^:]+:heartbeat"
    r")",
    re.DOTALL,
)


def check_writable(name: str, *, protect: bool) -> None:
    """Refuse (PERMISSION_DENIED) to write a name that is the core's own, if they are protected."""
    if protect and name.startswith(_INTERNAL) and _STOCK.fullmatch(name) is None:
        raise denied(f"The entry {name} is the core's own; only it writes it.")
