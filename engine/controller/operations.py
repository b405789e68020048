"""What the command line asks of a running engine beside applying: call, look, tokens."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.controller.controller import Controller
from engine.controller.observe import stored_json
from engine.controller.sessions import Session, Sessions
from engine.model.errors import EngineError, FlowInstanceException, NotFoundError
from engine.model.manifest import CoreSpec
from engine.reconcile.records import RELEASED, MountRecord
from engine.serving import dead_letters, instances, messages
from engine.serving.dead_letters import DeadLetter


@dataclass(frozen=True)
class _Target:
    """Where a call goes; `temporary` instances are deleted after it."""

    user_id: str
    flow_id: str
    temporary: bool


class Operations:
    """Calls and look-ups in the name of the engine's users."""

    def __init__(self, controller: Controller, sessions: Sessions) -> None:
        self._controller = controller
        self._sessions = sessions

    async def call(
        self, user: str, name: str, data: dict[str, Any], *, as_user: str | None, timeout: float
    ) -> dict[str, Any]:
        """Send `data` to a mount or endpoint of `user` and return the reply's data.

        The caller is `as_user`, or `user` himself. A call to an endpoint that is no singleton gets
        an instance of its own, which is deleted afterwards. Raises NotFoundError when there is no
        such user, mount or endpoint, FlowFailedError when the flow answers with an error,
        DeadlineExceededError after `timeout` seconds.
        """
        server = await self._session(user)
        caller = await self._session(as_user) if as_user else server
        target = await self._target(server, caller, name, timeout)
        try:
            reply = await messages.ask(
                caller.client, target.user_id, target.flow_id, data, timeout=timeout
            )
        finally:
            if target.temporary:
                await instances.delete_instance(server.client, target.flow_id, recursive=True)
        return reply.raise_for_error().data

    async def dead_letters(self, user: str) -> list[DeadLetter]:
        """Return the dead letters of a user, the oldest first."""
        return await dead_letters.letters((await self._session(user)).client)

    async def dead_letter(self, user: str, id_: str) -> DeadLetter:
        """Return a dead letter of a user; NotFoundError when there is none of that id."""
        return await dead_letters.read((await self._session(user)).client, id_)

    async def retry(self, user: str, id_: str, timeout: float) -> dict[str, Any] | None:
        """Send what a dead letter holds once more; return the reply's data, None without one.

        Raises FlowFailedError when the flow fails again, DeadlineExceededError.
        """
        client = (await self._session(user)).client
        reply = await dead_letters.retry(client, id_, timeout)
        return None if reply is None else reply.raise_for_error().data

    async def drop(self, user: str, ids: Iterable[str], *, everything: bool) -> list[str]:
        """Delete dead letters of a user and return their ids; NotFoundError for an unknown one."""
        client = (await self._session(user)).client
        known = [letter.id for letter in await dead_letters.letters(client)]
        wanted = known if everything else list(dict.fromkeys(ids))
        for id_ in wanted:
            if id_ not in known:
                raise NotFoundError(f"There is no dead letter {id_} of {user}.")
        await client.delete_many(keys.engine_dead(id_) for id_ in wanted)
        return wanted

    async def storage(self, user: str, prefix: str, *, values: bool) -> list[dict[str, Any]]:
        """Return the live entries below `prefix` of the user's storage, sorted by key.

        Each is `{"key", "value", "size"}`; `value` is None unless `values`, and text that is not
        UTF-8 is shown in hex. Without a prefix, entries of the core itself (`_internal` and other
        names with a leading underscore) are left out: tokens are among them.
        """
        client = (await self._session(user)).client
        if prefix:
            found = await client.read_tree(prefix)
            own = await client.read(prefix)
            found |= {prefix: own} if own is not None else {}
        else:
            found = {}
            for top in await _top_level(client):
                if not top.startswith("_"):
                    found |= await client.read_tree(top)
                    own = await client.read(top)
                    found |= {top: own} if own is not None else {}
        return [
            {
                "key": key,
                "value": _shown(payload) if values else None,
                "size": len(payload),
            }
            for key, payload in sorted(found.items())
        ]

    def users(self) -> list[dict[str, str]]:
        """Return the identities on this machine: name, user_id, and the core's address or kind."""
        users = [
            {"name": name, "user_id": user_id, "core": "embedded"}
            for name, user_id in self._sessions.embedded().items()
        ]
        for manifest in self._controller.manifests().values():
            for name in [] if manifest.core.embedded else manifest.users:
                user_id = self._sessions.user_id(manifest.core, name)
                if user_id is not None:
                    core = manifest.core.address
                    users.append({"name": name, "user_id": user_id, "core": core})
        return users

    async def token(self, user: str, expires_in: float) -> str:
        """Return a fresh user token for `user`, valid for `expires_in` seconds."""
        session = await self._session(user)
        expiration = int(self._controller.now() + expires_in)
        return await session.client.generate_token("user", expiration)

    async def _session(self, user: str) -> Session:
        """Return the session of a user, named as in a manifest."""
        for manifest in self._controller.manifests().values():
            spec = manifest.users.get(user)
            if spec is not None and not spec.foreign and not manifest.core.embedded:
                return self._sessions.get(manifest.core, user)
        found = self._sessions.find(CoreSpec(), user)
        return found or await self._sessions.open_embedded(user)

    async def _target(self, server: Session, caller: Session, name: str, timeout: float) -> _Target:
        payload = await server.client.read(keys.engine_mount(name))
        record = MountRecord.from_json(stored_json(payload))
        if record is not None and record.manifest != RELEASED:
            return _Target(record.user_id, record.flow_id, temporary=False)
        served = stored_json(await server.client.read(keys.flow(name, "init"))) == 1
        if not served:
            raise await self._nothing_called(server, name)
        singleton = stored_json(await server.client.read(keys.flow(name, "singleton"))) is True
        try:
            instance = await instances.get_instance(
                caller.client,
                await self._controller.catalog(),
                name,
                user_id=server.user_id,
                timeout=timeout,
            )
        except FlowInstanceException:
            raise
        except EngineError as error:
            raise FlowInstanceException(name, server.name, str(error)) from error
        return _Target(server.user_id, instance.flow_id, temporary=not singleton)

    async def _nothing_called(self, server: Session, name: str) -> NotFoundError:
        mounts = await server.client.read_tree(keys.ENGINE_MOUNTS)
        flows = await server.client.read_tree(keys.ENGINE_FLOWS)
        known = [key.rpartition(":")[2] for key in (*mounts, *flows)]
        return NotFoundError(
            f"User {server.name} has no mount and serves no endpoint called {name}.",
            _suggestion(name, known),
        )


async def _top_level(client: Client) -> Collection[str]:
    paths = await client.list_keys(f"{client.user_id}:")
    return sorted({path.partition("::")[2].partition("@")[0] for path in paths})


def _shown(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload.hex()


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return f"There are: {', '.join(names)}." if names else "Nothing is served yet."
