"""One canonical form and one digest for plain values.

Everything that is compared by digest (planner, executor, storage records) uses these two
functions on the *resolved* value, so that no two places can hash different forms of one thing.
"""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Return `value` (JSON data) as text that does not depend on the order of dict keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
