"""The tables. Every timestamp is in nanoseconds, unique over the whole file, and increasing.

- `keys` and `versions`: entries (§4). A version's timestamp is its row id, so `latest` leads to
  the value directly; after a delete it is negative, the time of the delete. `directory` is the
  name up to its last colon.
- `directories`: the markers of listings (§4.2), never removed.
- `tasks`: each participant's copy of a task; `lists`: the lists of §6.4 that a copy stands in by
  its status, with what their `:latest` says.
- `subscriptions`, `outbox`: queues, and events that the message queue has not confirmed yet.
- `mailbox`: messages that wait for a serial flow instance (§9.9).
- `parcels`: what users of other cores are to get (§6.5); `dialled`: to whom reverse connections
  are kept, and with which task they are dialled again (§6.6); `forgotten`: tasks that retention
  removed before they expired, so that nobody can begin them anew.
"""

_FIRST = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE owners(id INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE);
CREATE TABLE users(
    owner INTEGER PRIMARY KEY, consent BLOB NOT NULL, imported INTEGER NOT NULL
);
CREATE TABLE keys(
    owner INTEGER NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL,
    directory TEXT NOT NULL, latest INTEGER NOT NULL,
    PRIMARY KEY(owner, name)
) WITHOUT ROWID;
CREATE INDEX keys_by_directory ON keys(owner, directory);
CREATE TABLE versions(ts INTEGER PRIMARY KEY, key INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX versions_by_key ON versions(key, ts);
CREATE TABLE directories(
    owner INTEGER NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY(owner, parent, name)
) WITHOUT ROWID;
CREATE TABLE lists(
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, name TEXT NOT NULL,
    latest INTEGER NOT NULL, latest_task TEXT NOT NULL, changed INTEGER NOT NULL,
    UNIQUE(owner, name)
);
CREATE TABLE tasks(
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, task_id TEXT NOT NULL, ts INTEGER NOT NULL,
    status TEXT NOT NULL, role TEXT NOT NULL, record BLOB NOT NULL,
    protocol_list INTEGER NOT NULL, status_list INTEGER NOT NULL, entered INTEGER NOT NULL,
    UNIQUE(owner, task_id)
);
CREATE INDEX tasks_by_protocol ON tasks(protocol_list, entered);
CREATE INDEX tasks_by_status ON tasks(status_list, entered);
CREATE TABLE accounts(
    owner INTEGER PRIMARY KEY, username TEXT NOT NULL, password TEXT NOT NULL
);
CREATE TABLE subscriptions(queue TEXT PRIMARY KEY, owner INTEGER NOT NULL, name TEXT NOT NULL)
WITHOUT ROWID;
CREATE TABLE outbox(id INTEGER PRIMARY KEY, queue TEXT NOT NULL, message BLOB NOT NULL);
CREATE TABLE operators(
    instance_id TEXT PRIMARY KEY, owner INTEGER NOT NULL, package TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE mailbox(
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, flow_id TEXT NOT NULL,
    message_key TEXT NOT NULL, UNIQUE(owner, flow_id, message_key)
);
"""

_PEERS = """
CREATE TABLE parcels(
    id INTEGER PRIMARY KEY, sender INTEGER NOT NULL, receiver TEXT NOT NULL,
    task_id TEXT NOT NULL, task BLOB NOT NULL, opening INTEGER NOT NULL, expires INTEGER NOT NULL
);
CREATE INDEX parcels_by_pair ON parcels(sender, receiver, id);
CREATE TABLE dialled(
    sender INTEGER NOT NULL, receiver TEXT NOT NULL, task_id TEXT NOT NULL,
    PRIMARY KEY(sender, receiver)
) WITHOUT ROWID;
CREATE TABLE forgotten(
    owner INTEGER NOT NULL, task_id TEXT NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY(owner, task_id)
) WITHOUT ROWID;
"""

STEPS = (_FIRST, _PEERS)
"""What makes each version of the file out of the one before it."""
VERSION = len(STEPS)
