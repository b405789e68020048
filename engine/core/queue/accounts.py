"""Accounts at the message queue: one for each owner who subscribed (§5.1, §5.4, §5.5).

Accounts and passwords are kept in the store: Valkey forgets its ACL users at a restart, while
clients go on using the URI and the queue names that they once got.
"""

import secrets
import string
from dataclasses import dataclass

from engine.core.store import Store

_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class Account:
    """A user of the message queue, who reaches the queues under his own name and no others."""

    username: str
    password: str


class Accounts:
    """All accounts, by owner."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._accounts = {
            owner: Account(username, password)
            for owner, username, password in store.execute(
                "SELECT owner, username, password FROM accounts"
            )
        }

    def find(self, owner_id: int) -> Account | None:
        """Return an owner's account, if he has one."""
        return self._accounts.get(owner_id)

    def add(self, owner_id: int) -> Account:
        """Give an owner an account. It is unknown to the message queue yet."""
        account = Account(f"{self._prefix}--{_random(16)}", _random(32))
        self._store.write(
            "INSERT INTO accounts(owner, username, password) VALUES(?, ?, ?)",
            (owner_id, account.username, account.password),
        )
        self._accounts[owner_id] = account
        return account

    def all(self) -> list[Account]:
        """Return all accounts."""
        return list(self._accounts.values())

    def items(self) -> list[tuple[int, Account]]:
        """Return all owners' numbers and accounts."""
        return list(self._accounts.items())


def new_queue_name(account: Account) -> str:
    """Return a fresh queue name under the account's name: that of a stream and of its group."""
    return f"{account.username}:{_random(24)}"


def username_of(queue: str) -> str:
    """Return the name of the account that a queue belongs to."""
    return queue.rpartition(":")[0]


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
