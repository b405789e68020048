"""Who calls, and whether he may: the `authorization` header and privileges (§2.2, §2.3, §3.1)."""

from typing import Any
from urllib.parse import unquote

from engine.core.refusals import denied, unauthenticated
from engine.core.tokens import ANONYMOUS, GUEST, HOST, USER, Bearer, Tokens
from engine.core.users import Users

ANYBODY = frozenset({HOST, USER, GUEST, ANONYMOUS})
OWNERS = frozenset({HOST, USER})
"""Those who have a storage of their own."""
HOSTS = frozenset({HOST})
USERS = frozenset({USER})
PEERS = frozenset({USER, GUEST})
"""Those who may bring tasks from other cores."""


class Gate:
    """Tells callers apart and turns away who may not come in."""

    def __init__(self, tokens: Tokens, users: Users) -> None:
        self._tokens = tokens
        self._users = users

    def caller(self, context: Any, allowed: frozenset[str]) -> Bearer:
        """Return who calls, if his privilege is among `allowed`; refused otherwise."""
        token = metadata(context, "authorization")
        if token is None:
            raise unauthenticated("The authorization header is missing.")
        bearer = self._tokens.check(token)
        if bearer.privilege not in allowed:
            raise denied(f"The privilege {bearer.privilege} does not allow this.")
        if bearer.privilege in PEERS and bearer.user_id not in self._users:
            raise denied(f"The user {bearer.user_id} was not imported.")
        return bearer


def metadata(context: Any, name: str) -> str | None:
    """Return a header of a call, or None."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else value.decode()
    return None


def requestor_ip(context: Any) -> str:
    """Return the address of who calls, as proxies or the connection tell it."""
    forwarded = metadata(context, "x-forwarded-for")
    if forwarded:
        return forwarded.partition(",")[0].strip()
    return metadata(context, "x-real-ip") or peer_ip(context)


def peer_ip(context: Any) -> str:
    """Return the address at the other end of the connection, whatever headers say."""
    peer = unquote(context.peer()).partition(":")[2]
    return peer.rpartition(":")[0].strip("[]")
