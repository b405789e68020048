"""The address book of each user: at which core, and with which token, others are reached (§6.5)."""

import time
from typing import NamedTuple

from engine.colink import keys
from engine.colink.identity import claims
from engine.core.entries import Entries
from engine.core.tokens import GUEST, USER


class Pair(NamedTuple):
    """A user of this core, and one of another core with whom he works."""

    user_id: str
    peer_id: str


class Address(NamedTuple):
    """A core, and the token for it; `forwarder` is the user who passes tasks on, or "" (§6.6)."""

    core: str
    token: str
    forwarder: str = ""


class AddressBook:
    """The entries `_internal:known_users:…`, which users, SDKs and registries write."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def find(self, pair: Pair) -> Address | None:
        """Return where a user reaches a peer; None when that is not known, or no longer valid."""
        core, token, forwarder = (
            _text(self._entries.get(pair.user_id, name(pair.peer_id)))
            for name in (
                keys.known_user_address,
                keys.known_user_token,
                keys.known_user_forwarder,
            )
        )
        if not core or not is_token_of(token, pair.peer_id):
            return None
        return Address(core, token, forwarder)

    def write(self, pair: Pair, address: Address) -> None:
        """Keep how a peer is reached, in place of what was known before."""
        owner, peer_id = pair
        for name, value in (
            (keys.known_user_forwarder(peer_id), address.forwarder),
            (keys.known_user_token(peer_id), address.token),
            (keys.known_user_address(peer_id), address.core),
        ):
            known = self._entries.get(owner, name)
            if value and known != value.encode():
                self._entries.update(owner, name, value.encode())
            elif not value and known is not None:
                self._entries.delete(owner, name)


def is_token_of(token: str, user_id: str) -> bool:
    """Tell whether a token says that it leads to `user_id`, and is not over.

    Only his core can tell whether it is genuine.
    """
    try:
        said = claims(token)
    except ValueError:
        return False
    return (
        said.user_id == user_id and said.privilege in (GUEST, USER) and said.exp > int(time.time())
    )


def _text(payload: bytes | None) -> str:
    return (payload or b"").decode(errors="replace").strip()
