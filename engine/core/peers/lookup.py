"""Asking the registries where a user is (§6.5): a task `registry` of the one who wants to know."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from engine.colink import wire
from engine.core.effects import Effects
from engine.core.peers.address_book import Address, AddressBook, Pair
from engine.core.task_table import TaskCopy
from engine.core.tasks import Tasks

DEADLINE = 6.0
"""Seconds that an answer may take; upstream waits a minute."""
UNKNOWN_FOR = 5.0
"""Seconds in which nobody is asked again for one who was not found."""
_REMEMBERED = 10_000
_LIFETIME = 86400
_PROTOCOL, _ROLE = "registry", "query_from_registries"


class Lookup:
    """Finds peers that the address book lacks, or has wrong. Each is asked for once at a time."""

    def __init__(
        self,
        book: AddressBook,
        tasks: Tasks,
        effects: Effects,
        is_answered: Callable[[str], bool],
    ) -> None:
        """`is_answered` tells whether an operator that answers runs for a user."""
        self._book = book
        self._tasks = tasks
        self._effects = effects
        self._is_answered = is_answered
        self._asking: dict[Pair, asyncio.Task[None]] = {}
        self._answers: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._unknown: dict[Pair, float] = {}

    async def find(self, pair: Pair, wrong: Address | None = None) -> Address | None:
        """Return where a peer is; None when nobody knows, or knows nothing but `wrong`."""
        found = self._book.find(pair)
        if found is not None and found != wrong:
            return found
        if self._unknown.get(pair, 0.0) > time.monotonic() or not self._is_answered(pair.user_id):
            return None
        asking = self._asking.get(pair)
        if asking is None:
            asking = self._asking[pair] = asyncio.create_task(self._ask(pair))
            asking.add_done_callback(lambda _: self._asking.pop(pair, None))
        await asyncio.shield(asking)
        found = self._book.find(pair)
        if found is not None and found != wrong:
            return found
        if len(self._unknown) >= _REMEMBERED:
            self._unknown.clear()
        self._unknown[pair] = time.monotonic() + UNKNOWN_FOR
        return None

    def entered(self, copy: TaskCopy) -> None:
        """Take notice of a task that came to a status: an answer is a finished query."""
        if copy.status == "finished" and copy.task.protocol_name == _PROTOCOL:
            answer = self._answers.get((copy.owner, copy.task.task_id))
            if answer is not None and not answer.done():
                answer.set_result(None)

    async def stop(self) -> None:
        """Ask no longer."""
        for asking in list(self._asking.values()):
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _ask(self, pair: Pair) -> None:
        owner = pair.user_id
        query = wire.Task(
            protocol_name=_PROTOCOL,
            protocol_param=wire.UserRecord(user_id=pair.peer_id).SerializeToString(),
            participants=[wire.Participant(user_id=owner, role=_ROLE)],
            expiration_time=int(time.time()) + _LIFETIME,
        )
        task_id = self._tasks.create(owner, query)
        answer = asyncio.get_running_loop().create_future()
        self._answers[owner, task_id] = answer
        self._effects.run()
        try:
            async with asyncio.timeout(DEADLINE):
                await answer
        except TimeoutError:
            # Nobody shall take it up later.
            self._effects.add(partial(self._tasks.finish, owner, task_id))
            self._effects.run()
        finally:
            del self._answers[owner, task_id]
