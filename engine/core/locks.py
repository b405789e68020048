"""Locks of the SDKs: entries `_lock:<key>`, created to take them and deleted to release (§7.3)."""

from engine.core.entries import Entries

_LOCK = "_lock:"


def release_abandoned(entries: Entries, owner: str, name: str, before: int) -> None:
    """Release the lock `name` if it is one, and was taken before `before` (in nanoseconds).

    The protocol has no lease, so that the death of a holder blocks all others for ever (§12). A
    holder who comes back after all is told by his SDK that the lock is not his any more.
    """
    if name.startswith(_LOCK):
        held = entries.find(owner, name)
        if held is not None and held.timestamp < before:
            entries.delete(owner, name)
