"""Reading what a core that does not run has stored, without writing anything.

The file and its log are copied first: SQLite would otherwise finish the log's work in place.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from engine.core.server import STORE_FILE

Entries = dict[str, bytes]
_LIVE = """
SELECT keys.name, versions.payload
FROM owners
JOIN keys ON keys.owner = owners.id
JOIN versions ON versions.ts = keys.latest
WHERE owners.user_id = ? AND keys.name >= ? AND keys.name < ?
"""


def read_entries(home: Path, user_id: str, prefixes: tuple[str, ...]) -> Entries:
    """Return the live entries of a user whose names begin with one of `prefixes` and a colon.

    `home` is the core's folder. Nothing is returned for a core that never ran.
    """
    if not (home / STORE_FILE).exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            source = home / (STORE_FILE + suffix)
            if source.exists():
                shutil.copy(source, folder)
        with contextlib.closing(sqlite3.connect(Path(folder, STORE_FILE))) as connection:
            found: Entries = {}
            for prefix in prefixes:
                # `;` follows `:` in ASCII, so the range is exactly what begins with the prefix.
                found |= connection.execute(_LIVE, (user_id, f"{prefix}:", f"{prefix};"))
            return found
