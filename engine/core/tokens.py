"""JSON web tokens: minting, and checking with a cache, since each call carries one (§3.1)."""

import time
from typing import Any, NamedTuple

import jwt

from engine.core.refusals import unauthenticated

_ALGORITHM = "HS256"
_CACHED = 10_000
HOST, USER, GUEST = "host", "user", "guest"
ANONYMOUS = "anonymous"
HOST_LIFETIME = 31 * 86400
"""Seconds that a host's token is valid."""


class Bearer(NamedTuple):
    """Who calls. `expires` is in Unix seconds; an anonymous caller has no `user_id`."""

    privilege: str
    user_id: str
    expires: float


NOBODY = Bearer(ANONYMOUS, "", float("inf"))


# Expiry is looked at again at each use, and other claims mean nothing here.
_ONLY_SIGNATURE: Any = {
    f"verify_{claim}": False for claim in ("exp", "aud", "iat", "nbf", "iss", "sub", "jti")
}


class Tokens:
    """Mints and checks the tokens of one core."""

    def __init__(self, secret: bytes, max_lifetime: float = 0) -> None:
        """`max_lifetime` is in seconds; 0 means that tokens may last as long as is asked for."""
        self._secret = secret
        self._max_lifetime = max_lifetime
        self._checked: dict[str, Bearer] = {"": NOBODY}

    def mint(self, privilege: str, user_id: str, expires: int) -> str:
        """Return a token with exactly the three claims of the protocol.

        One that is to last longer than the core allows (§12) ends when the core says: its own
        claim tells so.
        """
        if self._max_lifetime > 0:
            expires = min(expires, int(time.time() + self._max_lifetime))
        claims = {"privilege": privilege, "user_id": user_id, "exp": expires}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def check(self, token: str) -> Bearer:
        """Return whose token this is; "" is nobody's. Refused when it is forged or expired."""
        bearer = self._checked.get(token)
        if bearer is None:
            bearer = self._verify(token)
            if len(self._checked) >= _CACHED:
                self._checked = {"": NOBODY}
            self._checked[token] = bearer
        if bearer.expires < time.time():
            raise unauthenticated("The token has expired.")
        return bearer

    def _verify(self, token: str) -> Bearer:
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[_ALGORITHM], options=_ONLY_SIGNATURE
            )
            return Bearer(str(claims["privilege"]), str(claims["user_id"]), int(claims["exp"]))
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise unauthenticated("The token is not one of this core.") from error
