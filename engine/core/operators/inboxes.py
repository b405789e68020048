"""The senders' side of variable transfer from peer to peer (§8.4, P2P form).

A receiver who can be reached says so in the variable `inbox`, and then waits for his variables
there and nowhere else. What this core sends in a user's name is posted to it as well.
"""

import asyncio
import json
import logging
import ssl
from dataclasses import dataclass

from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff

log = logging.getLogger(__name__)
_HOST = "vt-p2p.colink"
_ATTEMPTS = 5
_SECONDS = 60.0
_AT_ONCE = 16


@dataclass(frozen=True)
class Inbox:
    """Where a receiver is reached: his address, the token he gave, and the one certificate."""

    address: str
    token: str
    certificate: bytes

    @classmethod
    def parse(cls, payload: bytes) -> "Inbox | None":
        """Return what the variable `inbox` says; None for "there is none", and for nonsense."""
        try:
            fields = json.loads(payload)
            address, token = fields["addr"], fields["vt_jwt"]
            # Of a number, `bytes` would make as many zeros.
            certificate = bytes(list(fields["tls_cert"] or ()))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not (isinstance(address, str) and isinstance(token, str) and certificate):
            return None
        is_reachable = address.startswith("https://") and token.isascii() and token.isprintable()
        return cls(address, token, certificate) if is_reachable else None


class Inboxes:
    """Posts variables in the background; what cannot be delivered is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def post(self, inbox: Inbox, sender: str, key: str, payload: bytes) -> None:
        """Begin to post a variable of `sender`."""
        task = asyncio.create_task(self._deliver(inbox, sender, key, payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is under way."""
        await cancel_and_wait(list(self._tasks))

    async def _deliver(self, inbox: Inbox, sender: str, key: str, payload: bytes) -> None:
        import aiohttp  # takes a while, and few cores ever need it

        backoff = Backoff()
        async with self._gate:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    status = await _post(inbox, sender, key, payload)
                except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                    log.info("the inbox at %s cannot be reached: %s", inbox.address, error)
                    await asyncio.sleep(backoff.delay(attempt))
                    continue
                if status != 200:
                    log.warning("the inbox at %s refuses a variable: %d", inbox.address, status)
                return


async def _post(inbox: Inbox, sender: str, key: str, payload: bytes) -> int:
    """Post a variable and return the HTTP status; no certificate but the given one is trusted."""
    import aiohttp  # as above

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=inbox.certificate)
    headers = {"user_id": sender, "key": key, "token": inbox.token, "Host": _HOST}
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(
            inbox.address,
            data=payload,
            headers=headers,
            ssl=context,
            server_hostname=_HOST,
            allow_redirects=False,
        ) as reply,
    ):
        return reply.status
