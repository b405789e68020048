"""Accounts at the message queue: one for each owner who subscribed (§5.1, §5.4).

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
    """An ACL user that may run stream commands on keys that begin with its own name."""

    username: str
    password: str

    def uri(self, address: str, scheme: str = "redis") -> str:
        """Return the `mq_uri` for clients.

        The parameters are for redis-py 8: without them an endless read ends after five seconds, and
        answers in a shape that the SDK does not expect.
        """
        query = "protocol=2&socket_timeout=31536000"
        return f"{scheme}://{self.username}:{self.password}@{address}/?{query}"

    def command(self) -> tuple[str, ...]:
        """Return the Valkey command that makes the account, or makes it afresh."""
        return ("ACL", "SETUSER", self.username, "reset", *self._rights())

    def rule(self) -> str:
        """Return the account as a line of Valkey's ACL file."""
        return " ".join(("user", self.username, *self._rights()))

    def _rights(self) -> tuple[str, ...]:
        return ("on", f">{self.password}", f"~{self.username}:*", "+@stream")


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
        """Give an owner an account. It is unknown to Valkey yet."""
        account = Account(f"{self._prefix}--{_random(16)}", _random(32))
        self._store.write(
            "INSERT INTO accounts(owner, username, password) VALUES(?, ?, ?)",
            (owner_id, account.username, account.password),
        )
        self._accounts[owner_id] = account
        return account

    def rules(self) -> list[str]:
        """Return all accounts as lines of Valkey's ACL file."""
        return [account.rule() for account in self._accounts.values()]

    def items(self) -> list[tuple[int, Account]]:
        """Return all owners' numbers and accounts."""
        return list(self._accounts.items())


def new_queue_name(account: Account) -> str:
    """Return a fresh queue name: that of the stream and of its group, under the account's name."""
    return f"{account.username}:{_random(24)}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
